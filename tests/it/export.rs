//! Trained networks for others: what no page can show is refused, what runs it is whole. The page itself is
//! tested in a browser (`tests/page/run.sh`).

use crate::cli::CaseFile;
use crate::common::hebbian;
use hebbian::engine::gpu::portable;
use hebbian::export::{Exported, held_out_stimuli};
use hebbian::model::{Leak, Network, Parameters, Rule, Sharing};
use hebbian::task::{
    Copy, CopyConfig, Images, ImagesConfig, NetworkConfig, Patterns, PatternsConfig, Task,
};

fn patterns(bits: usize, networks: &NetworkConfig) -> Patterns {
    let config = PatternsConfig { bits, ..PatternsConfig::paper() };
    Patterns::new(&config, networks, 2, 0).unwrap()
}

#[test]
fn a_run_without_pictures_has_tensors_and_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let [case, run, page, npz] = ["case.safetensors", "run", "page.html", "n.npz"].map(path);
    std::fs::write(&case, CaseFile::good().bytes()).unwrap();
    let train = ["train", "custom", "--case", &case, "--out", &run, "--updates", "1", "--quiet"];
    assert_eq!(hebbian(&[&train[..], &["--device", "cpu"]].concat()).status.code(), Some(0));
    let answer = hebbian(&["export", &run, "--page", &page, "--npz", &npz]);
    let message = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(2), "{message}");
    for word in ["--page", "task custom", "patterns, images or copy", "--npz"] {
        assert!(message.contains(word), "no '{word}' in {message}");
    }
    assert!(!folder.path().join("n.npz").exists() && !folder.path().join("page.html").exists());
    let answer = hebbian(&["export", &run, "--npz", &npz, "--json"]);
    assert_eq!(answer.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(json["schema"], "hebbian.export/1");
    assert_eq!(json["npz"]["bytes"], std::fs::metadata(&npz).unwrap().len());
    assert!(json["page"].is_null());
}

#[test]
fn a_network_too_large_for_a_page_is_told_its_size() {
    let task = patterns(1800, &NetworkConfig::paper());
    let parameters = Parameters::zeros(&task.network());
    let exported = Exported::new(&task, &parameters, 1, String::new()).unwrap();
    let message = exported.page(&[]).unwrap_err().to_string();
    for word in ["1801 neurons", "a page of 33.", "at most 32.0 MiB"] {
        assert!(message.contains(word), "no '{word}' in {message}");
    }
}

#[test]
fn a_rule_without_kernels_has_no_page() {
    let networks = NetworkConfig { rule: "bcm".into(), ..NetworkConfig::paper() };
    let task = patterns(30, &networks);
    let network = Network { n_networks: 1, ..task.network() };
    let message = portable(&network, false).unwrap_err().to_string();
    assert!(message.contains("bcm") && message.contains("decay"), "{message}");
}

#[test]
fn a_step_names_only_buffers_that_it_has_and_its_memory_lies_in_them() {
    for (rule, leak) in [
        (Rule::Decay, None),
        (Rule::Retroactive, Some((Leak::Rate, Sharing::PerNeuron))),
        (Rule::Modulated, Some((Leak::Membrane, Sharing::PerNetwork))),
    ] {
        let mut network = patterns(30, &NetworkConfig::paper()).network();
        (network.n_networks, network.rule, network.stages.leak) = (1, rule, leak);
        network.stages.bias = Some(Sharing::PerNeuron);
        let plan = portable(&network, true).unwrap();
        for dispatch in plan.begin.iter().chain(&plan.step) {
            let kernel = plan.kernels.iter().find(|kernel| kernel.stem == dispatch.kernel).unwrap();
            assert_eq!(dispatch.buffers.len(), kernel.bindings.len());
            assert!(dispatch.step < plan.steps.len());
            for (name, (_, access)) in dispatch.buffers.iter().zip(&kernel.bindings) {
                let uniform = ["uniform", "step"].contains(access);
                assert_eq!(uniform, !plan.buffers.contains_key(*name), "{name} {access}");
            }
        }
        for vector in &plan.memory {
            for (buffer, at) in [vector.before, vector.after] {
                assert!(at + vector.bytes <= plan.buffers[buffer], "{vector:?}");
            }
        }
        let names: Vec<&str> = plan.memory.iter().map(|vector| vector.name).collect();
        let membrane = matches!(leak, Some((Leak::Membrane, _)));
        assert_eq!(names, if membrane { vec!["y", "traces", "v"] } else { vec!["y", "traces"] });
    }
}

#[test]
fn a_page_offers_stimuli_of_held_out_episodes_of_its_network() {
    let config = ImagesConfig { side: 4, images: 3, ..ImagesConfig::quick() };
    let task = Images::new(&config, &NetworkConfig::paper(), 2, 0).unwrap();
    let [first, second] = [0, 1].map(|number| held_out_stimuli(&task, 7, number, 5));
    assert_eq!(first.len(), 5);
    assert!(first.iter().all(|values| values.len() == 16 && values.iter().any(|v| v.abs() > 0.99)));
    assert_ne!(first, second);
    assert_eq!(first[..2], held_out_stimuli(&task, 7, 0, 2));
}

#[test]
fn a_page_of_copying_holds_its_core_its_layers_and_held_out_sequences() {
    let config = CopyConfig { length: 4, delay: 3, bits: 2, neurons: 5 };
    let task = Copy::new(&config, &NetworkConfig::paper(), 2, 0).unwrap();
    let sequences = held_out_stimuli(&task, 7, 1, 3);
    assert_eq!(sequences.len(), 3);
    assert!(sequences.iter().all(|one| one.len() == 8 && one.iter().all(|v| v.abs() == 1.0)));
    assert_ne!(sequences, held_out_stimuli(&task, 7, 0, 3));
    let exported = Exported::new(&task, &task.initial(0), 1, String::new()).unwrap();
    let page = exported.page(&sequences).unwrap();
    let (_, data) = page.split_once("id=\"network\">").unwrap();
    let data: serde_json::Value =
        serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["sequence"], serde_json::json!({ "length": 4, "bits": 2, "delay": 3 }));
    assert!(data["recall"].is_null());
    let layers: Vec<&String> = data["layers"].as_object().unwrap().keys().collect();
    assert_eq!(layers, ["in.b", "in.w", "out.b", "out.w"]);
    let tensors = data["tensors"].as_array().unwrap();
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["w", "alpha", "eta"]);
}
