//! The page: one HTML file with the network, the shaders that run it, and the code that runs those.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::engine::gpu::{PortableKernel, portable};
use crate::error::{Error, Result, bytes};
use crate::export::Exported;
use crate::model::{Entry, Network, Parameters, Tensor};
use crate::report::style;

const HTML: &str = include_str!("page/page.html");
/// What this page alone has beside the style of every page.
const STYLE: &str = include_str!("page/page.css");

/// What a page shows: its words, and its code in the order of its use.
struct Kind {
    html: &'static str,
    code: [&'static str; 8],
}

const PICTURES: Kind = Kind {
    html: include_str!("page/picture-page.html"),
    code: code(
        [include_str!("page/stimulus.js"), include_str!("page/picture-life.js")],
        include_str!("page/picture-page.js"),
    ),
};

const SEQUENCES: Kind = Kind {
    html: include_str!("page/sequence-page.html"),
    code: code(["", include_str!("page/sequence-life.js")], include_str!("page/sequence-page.js")),
};

/// The code of every page around that of its kind: the life, and the page.
const fn code([stimulus, life]: [&'static str; 2], page: &'static str) -> [&'static str; 8] {
    [
        include_str!("page/network.js"),
        include_str!("page/gpu.js"),
        include_str!("page/life.js"),
        include_str!("page/pictures.js"),
        stimulus,
        life,
        include_str!("page/page.js"),
        page,
    ]
}

/// Bytes of a page at most: browsers open more, but nobody sends it.
const MOST: usize = 32 << 20;

/// The page of a network, with a few stimuli to try.
pub(super) fn page(exported: &Exported, examples: &[Vec<f32>]) -> Result<String> {
    let network = &exported.network;
    let (kind, clamped) = match (exported.recall, exported.sequence) {
        (Some(recall), _) => (PICTURES, recall.clamped),
        (None, Some(_)) => (SEQUENCES, false),
        (None, None) => {
            let found = format!("task {}, which shows nothing that a page can", exported.task);
            let wanted = "patterns, images or copy; --npz FILE and --safetensors FILE take any run";
            return Err(Error::value("--page", found, wanted));
        }
    };
    let (core, parameters) = core(exported);
    let plan = portable(&core, clamped)?;
    let values = parameters.network(0);
    // three bytes are four letters
    let letters = |values: &[f32]| size_of_val(values).div_ceil(3) * 4;
    let style = style() + STYLE;
    let fixed = HTML.len()
        + style.len()
        + kind.html.len()
        + kind.code.iter().map(|code| code.len()).sum::<usize>();
    let shaders = plan.kernels.iter().map(|kernel| kernel.text.len()).sum::<usize>();
    let stimuli: usize = examples.iter().map(|values| letters(values)).sum();
    let size = letters(values) + stimuli + fixed + shaders;
    if size > MOST {
        let found =
            format!("a network of {} neurons, a page of {}", network.n_post, bytes(size as u64));
        let most = bytes(MOST as u64);
        let wanted = format!("at most {most}; --npz FILE and --safetensors FILE take any size");
        return Err(Error::value("--page", found, wanted));
    }
    let base64 = |values: &[f32]| STANDARD.encode(bytemuck::cast_slice::<f32, u8>(values));
    let tensor = |e: &Entry| json!({ "name": e.name, "shape": e.shape, "at": e.offset });
    let mut data = exported.settings();
    data["tensors"] = parameters.layout().entries().iter().map(tensor).collect();
    data["parameters"] = base64(values).into();
    let around = exported.parameters.layout().entries().iter();
    let around = around.filter(|e| LAYERS.contains(&e.tensor));
    let values = |e: &Entry| base64(exported.parameters.get(0, e.tensor)).into();
    data["layers"] =
        around.map(|e| (e.name.clone(), values(e))).collect::<serde_json::Map<_, _>>().into();
    data["examples"] = examples.iter().map(|values| base64(values)).collect();
    data["plan"] = json!(plan);
    let shader = |kernel: &PortableKernel| {
        format!(
            "<script type=\"text/wgsl\" id=\"{}.wgsl\">\n{}</script>\n",
            kernel.stem, kernel.text
        )
    };
    let shaders: String = plan.kernels.iter().map(shader).collect();
    // a closing tag may not stand inside
    let data = data.to_string().replace('<', "\\u003c");
    let (lede, main) = kind.html.split_once("<!--main-->\n").expect("two parts of a page");
    // the network last: no place stands behind it that its words could name
    let parts = [
        ("/*style*/", &*style),
        ("<!--shaders-->\n", &shaders),
        ("<!--lede-->\n", lede),
        ("<!--main-->\n", main),
        ("/*code*/", &kind.code.concat()),
        ("/*network*/", &data),
    ];
    let put = |page: String, (place, part): &(&str, &str)| page.replacen(place, part, 1);
    Ok(parts.iter().fold(HTML.to_string(), put))
}

/// What the page computes in JavaScript, around the core that its shaders run.
const LAYERS: [Tensor; 4] = [Tensor::InW, Tensor::InB, Tensor::OutW, Tensor::OutB];

/// The network without layers around it, and its parameters.
fn core(exported: &Exported) -> (Network, Parameters<f32>) {
    let mut network = exported.network.clone();
    let stages = &mut network.stages;
    (stages.input, stages.output, stages.output_loss) = (None, None, None);
    stages.frozen.retain(|tensor| !LAYERS.contains(tensor));
    let mut parameters = Parameters::zeros(&network);
    let tensors: Vec<Tensor> = parameters.layout().entries().iter().map(|e| e.tensor).collect();
    for tensor in tensors {
        parameters.get_mut(0, tensor).copy_from_slice(exported.parameters.get(0, tensor));
    }
    (network, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;
    use crate::task::{NetworkConfig, Patterns, PatternsConfig, Task};

    /// What a run says of itself stays data, whatever it is.
    #[test]
    fn words_of_a_run_neither_end_a_script_nor_take_the_place_of_one() {
        let config = PatternsConfig { bits: 12, ..PatternsConfig::small() };
        let task = Patterns::new(&config, &NetworkConfig::paper(), 1, 0).unwrap();
        let stimuli = task.episodes(0, Purpose::HeldOut, 0, 1).stimuli[..12].to_vec();
        let made = |origin: &str| {
            let exported = Exported::new(&task, &task.initial(0), 0, origin.into()).unwrap();
            page(&exported, std::slice::from_ref(&stimuli)).unwrap()
        };
        let evil = "</script><!--/*code*/<!--shaders-->\n/*style*/";
        let (plain, other) = (made("seed 0"), made(evil));
        let count = |page: &str, what: &str| page.matches(what).count();
        for what in ["<script", "</script>", "class Life {"] {
            assert_eq!(count(&other, what), count(&plain, what), "{what}");
        }
        let (_, rest) = other.split_once("id=\"network\">").unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["trained"], evil);
    }
}
