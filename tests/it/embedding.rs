//! The embedding of images: against plain loops in f64, and by finite differences.

use crate::common::relative_error;
use hebbian::engine::{Want, cpu};
use hebbian::model::{
    Activation, AlphaSharing, Embedding, Episodes, Loss, NO_ROW, Network, Optimiser, Parameters,
    Rule, Schedule, Shape, Sharing, Signals, Stages, StepSize, Tensor,
};
use hebbian::random::{Purpose, Stream};

const SIDE: usize = 12;
const LAYERS: usize = 2;
const CHANNELS: usize = 3;

fn network() -> Network {
    let embedding = Embedding { side: SIDE, channels: CHANNELS, layers: LAYERS };
    let network = Network {
        n_networks: 2,
        n_pre: embedding.features(),
        n_post: 4,
        recurrent: false,
        rule: Rule::Oja,
        activation: Activation::Softmax,
        loss: Loss::Bce,
        clip: None,
        alpha: AlphaSharing::PerConnection,
        eta: Sharing::PerNetwork,
        stages: Stages { embedding: Some(embedding), ..Stages::default() },
    };
    // 12 -> 5 -> 2
    assert_eq!(network.n_pre, 2 * 2 * CHANNELS);
    network.validate().unwrap();
    network
}

/// 21 images a network: more than one product's, and not a multiple of it.
fn episodes(network: &Network) -> Episodes<f64> {
    let (n_batch, n_steps) = (7, 3);
    let total = 2 * n_batch;
    let mut stream = Stream::new(6, Purpose::Training, 0, 0);
    let mut some = |n: usize| -> Vec<f64> { (0..n).map(|_| stream.normal()).collect() };
    let images = some(total * n_steps * SIDE * SIDE);
    let stimuli = some(total * 4);
    Episodes {
        shape: Shape { n_batch, n_steps, n_stimuli: 1, n_targets: 1, clamped: false },
        stimuli,
        clamps: None,
        shown: vec![0; total * n_steps],
        targets: [0.0, 1.0, 0.0, 0.0].repeat(total),
        loss_weights: vec![0.25; total * network.n_post],
        scored: [NO_ROW, 0, 0].repeat(total),
        pre: None,
        y0: None,
        h0: None,
        e0: None,
        signals: Signals { images: Some(images), ..Signals::default() },
    }
}

fn parameters(network: &Network) -> Parameters<f64> {
    let mut parameters = Parameters::zeros(network);
    let mut stream = Stream::new(7, Purpose::Parameters, 0, 0);
    parameters.values_mut().iter_mut().for_each(|v| *v = 0.3 * stream.normal());
    parameters
}

/// Features of an image by loops over what the equations name.
fn features(parameters: &Parameters<f64>, p: usize, image: &[f64]) -> Vec<f64> {
    let (mut maps, mut side, mut n_maps) = (image.to_vec(), SIDE, 1);
    for k in 0..LAYERS {
        let (w, b) = (parameters.get(p, Tensor::ConvW(k)), parameters.get(p, Tensor::ConvB(k)));
        let out = (side - 3) / 2 + 1;
        let mut next = vec![0.0; out * out * CHANNELS];
        for y in 0..out {
            for x in 0..out {
                for c in 0..CHANNELS {
                    let mut z = b[c];
                    for dy in 0..3 {
                        for dx in 0..3 {
                            for m in 0..n_maps {
                                let pixel = ((2 * y + dy) * side + 2 * x + dx) * n_maps + m;
                                z += w[((3 * dy + dx) * n_maps + m) * CHANNELS + c] * maps[pixel];
                            }
                        }
                    }
                    next[(y * out + x) * CHANNELS + c] = z.tanh();
                }
            }
        }
        (maps, side, n_maps) = (next, out, CHANNELS);
    }
    maps
}

/// The networks without their embedding, given the features.
fn of_features(
    network: &Network,
    parameters: &Parameters<f64>,
    episodes: &Episodes<f64>,
) -> (Network, Parameters<f64>, Episodes<f64>) {
    let core = Network { stages: Stages::default(), ..network.clone() };
    let mut own = Parameters::zeros(&core);
    for p in 0..2 {
        for tensor in [Tensor::W, Tensor::Alpha, Tensor::Eta] {
            own.get_mut(p, tensor).copy_from_slice(parameters.get(p, tensor));
        }
    }
    let images = episodes.signals.images.as_ref().unwrap();
    let of_network = images.len() / 2;
    let pre = images
        .chunks_exact(SIDE * SIDE)
        .enumerate()
        .flat_map(|(k, image)| features(parameters, k * SIDE * SIDE / of_network, image))
        .collect();
    let signals = Signals { images: None, ..episodes.signals.clone() };
    (core, own, Episodes { pre: Some(pre), signals, ..episodes.clone() })
}

fn loss(network: &Network, parameters: &Parameters<f64>, episodes: &Episodes<f64>) -> f64 {
    let mut engine = cpu::open::<f64>(network).unwrap();
    engine.set_parameters(parameters).unwrap();
    engine.evaluate(episodes, Want::default()).unwrap().loss.iter().sum()
}

#[test]
fn features_are_those_of_plain_loops_and_gradients_those_of_finite_differences() {
    let network = network();
    let (parameters, episodes) = (parameters(&network), episodes(&network));
    let mut engine = cpu::open::<f64>(&network).unwrap();
    engine.set_parameters(&parameters).unwrap();
    let want = Want { gradients: true, activity: true, traces: true };
    let found = engine.evaluate(&episodes, want).unwrap();
    let (core, own, given) = of_features(&network, &parameters, &episodes);
    let mut plain = cpu::open::<f64>(&core).unwrap();
    plain.set_parameters(&own).unwrap();
    let wanted = plain.evaluate(&given, want).unwrap();
    for (name, found, wanted) in [
        ("y", &found.y, &wanted.y),
        ("H", &found.h, &wanted.h),
        ("loss", &found.loss, &wanted.loss),
    ] {
        let error = relative_error(found, wanted);
        println!("{name}: {:.3} of 1e-12", error / 1e-12);
        assert!(error <= 1e-12, "{name}: {error}");
    }

    let gradients = found.gradients.unwrap().parameters;
    let mut stream = Stream::new(8, Purpose::Training, 0, 0);
    let mut worst: f64 = 0.0;
    for p in 0..2 {
        for tensor in (0..LAYERS).flat_map(|k| [Tensor::ConvW(k), Tensor::ConvB(k)]) {
            let n = parameters.get(p, tensor).len();
            for _ in 0..12 {
                let k = stream.below(u32::try_from(n).unwrap()) as usize;
                let moved = |by: f64| {
                    let mut moved = parameters.clone();
                    moved.get_mut(p, tensor)[k] += by;
                    loss(&network, &moved, &episodes)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let error = (gradients.get(p, tensor)[k] - slope).abs();
                worst = worst.max(error / (1e-8 * slope.abs().max(0.1)));
            }
        }
    }
    println!("gradients: {worst:.3} of 1e-8");
    assert!(worst <= 1.0, "{worst}");

    // in f32, and the same when an update adds them up
    let small = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let mut in_f32 = cpu::open::<f32>(&network).unwrap();
    let mut narrow = Parameters::<f32>::zeros(&network);
    narrow.values_mut().copy_from_slice(&small(parameters.values()));
    in_f32.set_parameters(&narrow).unwrap();
    let batch = Episodes {
        shape: episodes.shape,
        stimuli: small(&episodes.stimuli),
        clamps: None,
        shown: episodes.shown.clone(),
        targets: small(&episodes.targets),
        loss_weights: small(&episodes.loss_weights),
        scored: episodes.scored.clone(),
        pre: None,
        y0: None,
        h0: None,
        e0: None,
        signals: episodes.signals.map(|values| small(values)),
    };
    let program = in_f32.program(batch.shape, Want::UPDATE).unwrap();
    in_f32.backward(&program, &batch).unwrap();
    in_f32.backward(&program, &batch).unwrap();
    let twice: Vec<f64> =
        in_f32.gradients().unwrap().values().iter().map(|&g| f64::from(g) / 2.0).collect();
    let error = relative_error(&twice, gradients.values());
    println!("f32: {:.3} of 2e-5", error / 2e-5);
    assert!(error <= 2e-5, "{error}");
    let schedule = Schedule { rate: 1e-3, decay: 1.0, every: 1, max_norm: 0.0 };
    in_f32.step(StepSize::at(Optimiser::adam(), &schedule, 0)).unwrap();
    let moved = in_f32.parameters().unwrap();
    assert!(moved.get(1, Tensor::ConvW(0)) != narrow.get(1, Tensor::ConvW(0)));
}

#[test]
fn images_that_do_not_fit_are_refused_and_a_gpu_says_that_it_has_no_embedding() {
    let network = network();
    let good = episodes(&network);
    let mut engine = cpu::open::<f64>(&network).unwrap();
    let mut refused = |change: &dyn Fn(&mut Episodes<f64>), word: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = engine.evaluate(&bad, Want::default()).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    refused(&|e| e.signals.images = None, "images");
    refused(&|e| _ = e.signals.images.as_mut().unwrap().pop(), "images");
    refused(&|e| e.pre = Some(vec![0.0; 14 * 3 * 12]), "images instead");
    let small = Embedding { side: 6, channels: 2, layers: 3 };
    let stages = Stages { embedding: Some(small), ..Stages::default() };
    assert!(Network { stages, ..network.clone() }.validate().is_err());
    assert!(Network { n_pre: 5, ..network.clone() }.validate().is_err());
    assert!(!hebbian::engine::gpu::GpuEngine::runs(&network));
}
