//! The page: one HTML file with the network, the shaders that run it, and the code that runs those.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::engine::gpu::{PortableKernel, portable};
use crate::error::{Error, Result, bytes};
use crate::export::Exported;
use crate::model::Entry;
use crate::report::style;

const HTML: &str = include_str!("page/page.html");
/// What this page alone has beside the style of every page.
const STYLE: &str = include_str!("page/page.css");
/// The page's code, in the order of its use.
const CODE: [&str; 6] = [
    include_str!("page/network.js"),
    include_str!("page/gpu.js"),
    include_str!("page/stimulus.js"),
    include_str!("page/life.js"),
    include_str!("page/pictures.js"),
    include_str!("page/page.js"),
];

/// Bytes of a page at most: browsers open more, but nobody sends it.
const MOST: usize = 32 << 20;

/// The page of a network, with a few stimuli to try.
pub(super) fn page(exported: &Exported, examples: &[Vec<f32>]) -> Result<String> {
    let network = &exported.network;
    let Some(recall) = exported.recall else {
        let found = format!("task {}, which shows no pictures", exported.task);
        let wanted = "patterns or images; --npz FILE and --safetensors FILE take any run";
        return Err(Error::value("--page", found, wanted));
    };
    let plan = portable(network, recall.clamped)?;
    let values = exported.parameters.network(0);
    // three bytes are four letters
    let letters = |values: &[f32]| size_of_val(values).div_ceil(3) * 4;
    let style = style() + STYLE;
    let fixed = HTML.len() + style.len() + CODE.iter().map(|code| code.len()).sum::<usize>();
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
    data["tensors"] = exported.parameters.layout().entries().iter().map(tensor).collect();
    data["parameters"] = base64(values).into();
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
    // the network last: no place stands behind it that its words could name
    let parts = [
        ("/*style*/", &*style),
        ("<!--shaders-->\n", &shaders),
        ("/*code*/", &CODE.concat()),
        ("/*network*/", &data),
    ];
    let put = |page: String, (place, part): &(&str, &str)| page.replacen(place, part, 1);
    Ok(parts.iter().fold(HTML.to_string(), put))
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
