//! Grey images (Miconi et al. 2018, section 4.2): shown a few images that the network has
//! never seen, reconstruct one of them from its top or its bottom half.

mod cifar;
mod dead_leaves;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::model::{Episodes, NO_ROW, Network, Parameters, Shape, Signals};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::{Purpose, Stream};
use crate::task::memorise::Order;
use crate::task::{Answers, NetworkConfig, Recall, Task};

use cifar::Cifar;

/// The task's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// A folder with CIFAR-10 in its binary layout; empty: generated images ("dead
    /// leaves").
    pub data: PathBuf,
    /// SHA-256 of the folder's images; empty before the run begins. Others are refused.
    #[serde(default)]
    pub sha256: String,
    /// Images per episode.
    pub images: usize,
    /// Pixels along a side, an even number; with CIFAR-10 a divisor of 32. The network has
    /// a neuron for each pixel and one more, the bias.
    pub side: usize,
    /// How often every image is shown.
    pub cycles: usize,
    /// Steps that an image is shown for.
    pub shown: usize,
    /// Blank steps after each.
    pub blank: usize,
    /// Steps that the degraded image is shown for at the end.
    pub test: usize,
}

impl ImagesConfig {
    /// 3 images of 32 x 32 pixels: every number of the paper.
    #[must_use]
    pub fn paper() -> Self {
        ImagesConfig {
            data: PathBuf::new(),
            sha256: String::new(),
            images: 3,
            side: 32,
            cycles: 3,
            shown: 20,
            blank: 2,
            test: 3,
        }
    }

    /// 2 images of 16 x 16 pixels, shown twice and for half as long.
    #[must_use]
    pub fn quick() -> Self {
        ImagesConfig { images: 2, side: 16, cycles: 2, shown: 10, blank: 1, ..Self::paper() }
    }

    fn order(&self) -> Order {
        Order {
            stimuli: self.images,
            cycles: self.cycles,
            shown: self.shown,
            blank: self.blank,
            test: self.test,
        }
    }
}

/// The longest side: a network of 65,537 neurons is past every device.
const LONGEST: usize = 256;

/// The task for a population.
#[derive(Clone, Debug)]
pub struct Images {
    config: ImagesConfig,
    networks: NetworkConfig,
    network: Network,
    first: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    DeadLeaves,
    Cifar(Cifar),
}

impl Images {
    /// The task for P networks, the first of which is number `first` of the streams; reads the data.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense, [`Error::File`] or
    /// [`Error::Io`] naming the data file.
    pub fn new(
        config: &ImagesConfig,
        networks: &NetworkConfig,
        n_networks: usize,
        first: u32,
    ) -> Result<Self> {
        config.order().validate("task.images")?;
        let side = config.side;
        let own_data = !config.data.as_os_str().is_empty();
        if side == 0 || side > LONGEST || !side.is_multiple_of(2) {
            let wanted = format!("an even number from 2 to {LONGEST}");
            return Err(Error::value("task.side", side.to_string(), wanted));
        }
        if own_data && !cifar::SIDE.is_multiple_of(side) {
            let wanted = "32, 16, 8, 4 or 2 pixels of a CIFAR-10 image";
            return Err(Error::value("task.side", side.to_string(), wanted));
        }
        let network = networks.recurrent(n_networks, side * side + 1)?;
        let source = if own_data {
            let cifar = Cifar::read(&config.data, config.images)?;
            files::check_sha256(&config.data, &config.sha256, &cifar.sha256)?;
            Source::Cifar(cifar)
        } else {
            Source::DeadLeaves
        };
        Ok(Images { config: config.clone(), networks: networks.clone(), network, first, source })
    }

    /// SHA-256 of the images that the task was given; empty where it makes them.
    pub(crate) fn sha256(&self) -> &str {
        match &self.source {
            Source::Cifar(cifar) => &cifar.sha256,
            Source::DeadLeaves => "",
        }
    }

    fn n_pixels(&self) -> usize {
        self.config.side * self.config.side
    }

    /// Fills `images` `[images, pixels]` with different images of a stream.
    fn draw(&self, purpose: Purpose, stream: &mut Stream, images: &mut [&mut [f32]]) {
        let side = self.config.side;
        match &self.source {
            Source::DeadLeaves => {
                images.iter_mut().for_each(|image| dead_leaves::draw(stream, side, image));
            }
            Source::Cifar(cifar) => cifar.draw(purpose, stream, side, images),
        }
        images.iter_mut().for_each(|image| normalise(image));
    }

    /// Whether a pixel of the test stimulus of episode `e` was hidden.
    fn is_hidden(&self, episodes: &Episodes<f32>, e: usize, pixel: usize) -> bool {
        let (n, n_stimuli) = (self.network.n_post, episodes.shape.n_stimuli);
        let at = ((e + 1) * n_stimuli - 1) * n + pixel;
        episodes.clamps.as_ref().is_some_and(|clamps| clamps[at] == 0.0)
    }
}

/// Minus the mean, divided by the largest deviation.
fn normalise(image: &mut [f32]) {
    let mean = image.iter().map(|&v| f64::from(v)).sum::<f64>() / f64::from(index(image.len()));
    let most = image.iter().map(|&v| (f64::from(v) - mean).abs()).fold(0.0, f64::max);
    for value in image {
        *value = single((f64::from(*value) - mean) / (1e-8 + most));
    }
}

impl Task for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn error_name(&self) -> &'static str {
        "hidden-pixel error"
    }

    fn network(&self) -> Network {
        self.network.clone()
    }

    fn initial(&self, seed: u64) -> Parameters<f32> {
        self.networks.initial(&self.network, seed, self.first)
    }

    fn shape(&self, n_batch: usize) -> Shape {
        Shape {
            n_batch,
            n_steps: self.config.order().n_steps(),
            n_stimuli: self.config.images + 2,
            n_targets: 1,
            clamped: true,
        }
    }

    fn episodes(&self, seed: u64, purpose: Purpose, first: u32, n_batch: usize) -> Episodes<f32> {
        let c = &self.config;
        let shape = self.shape(n_batch);
        let (n, pixels, n_steps) = (self.network.n_post, self.n_pixels(), shape.n_steps);
        let table = shape.n_stimuli * n;
        let total = self.network.n_networks * n_batch;
        let mut stimuli = vec![0.0; total * table];
        let mut targets = vec![0.0; total * n];
        let mut loss_weights = vec![1.0; total * n];
        let mut shown = Vec::with_capacity(total * n_steps);
        let mut scored = vec![NO_ROW; total * n_steps];
        for (e, stimuli) in stimuli.chunks_exact_mut(table).enumerate() {
            let (p, b) = (e / n_batch, e % n_batch);
            let mut stream = Stream::new(
                seed,
                purpose,
                self.first.wrapping_add(index(p)),
                first.wrapping_add(index(b)),
            );
            let (images, others) = stimuli.split_at_mut(c.images * n);
            let mut pictures: Vec<&mut [f32]> =
                images.chunks_exact_mut(n).map(|row| &mut row[..pixels]).collect();
            self.draw(purpose, &mut stream, &mut pictures);
            c.order().draw(&mut stream, &mut shown);

            let tested = stream.below(index(c.images)) as usize;
            let seen = stream.below(2) as usize * (pixels / 2);
            let seen = seen..seen + pixels / 2;
            let image = &images[tested * n..][..pixels];
            targets[e * n..][..pixels].copy_from_slice(image);
            others[n..][seen.clone()].copy_from_slice(&image[seen]);
            for row in stimuli.chunks_exact_mut(n) {
                row[pixels] = 1.0;
            }
            // the bias, and neurons that are asked for nothing
            loss_weights[e * n + pixels..(e + 1) * n].fill(0.0);
            scored[(e + 1) * n_steps - 1] = 0;
        }
        let clamps = stimuli.iter().map(|&u| if u == 0.0 { 0.0 } else { 1.0 }).collect();
        Episodes {
            shape,
            stimuli,
            clamps: Some(clamps),
            shown,
            targets,
            loss_weights,
            scored,
            pre: None,
            y0: None,
            h0: None,
            e0: None,
            signals: Signals::default(),
        }
    }

    /// Root mean square over the hidden half, as a share of the image's largest deviation
    /// from its mean.
    fn errors(&self, episodes: &Episodes<f32>, answers: &Answers<'_>) -> Option<Vec<f64>> {
        let (n, pixels) = (self.network.n_post, self.n_pixels());
        let episodes_of = answers.y_last.chunks_exact(n).enumerate();
        Some(
            episodes_of
                .map(|(e, y)| {
                    let target = &episodes.targets[e * n..][..pixels];
                    let hidden: Vec<f64> = (0..pixels)
                        .filter(|&k| self.is_hidden(episodes, e, k))
                        .map(|k| f64::from(y[k]) - f64::from(target[k]))
                        .collect();
                    let squares: f64 = hidden.iter().map(|d| d * d).sum();
                    (squares / f64::from(index(hidden.len().max(1)))).sqrt()
                })
                .collect(),
        )
    }

    fn guess(&self) -> Option<(&'static str, Vec<f32>)> {
        Some(("the image's mean", vec![0.0; self.network.n_post]))
    }

    fn picture(
        &self,
        episodes: &Episodes<f32>,
        answers: &Answers<'_>,
        e: usize,
    ) -> Option<Picture> {
        let (n, pixels) = (self.network.n_post, self.n_pixels());
        let table = &episodes.stimuli[e * episodes.shape.n_stimuli * n..];
        let row = |k: usize| table[k * n..][..pixels].to_vec();
        let mut tiles: Vec<(String, Vec<f32>)> =
            (0..self.config.images).map(|k| (format!("shown {}", k + 1), row(k))).collect();
        tiles.push(("cue".into(), row(self.config.images + 1)));
        tiles.push(("reconstructed".into(), answers.y_last[e * n..][..pixels].to_vec()));
        tiles.push(("the image".into(), episodes.targets[e * n..][..pixels].to_vec()));
        Some(Picture { width: self.config.side, tiles })
    }

    fn recall(&self) -> Option<Recall> {
        let c = &self.config;
        (self.networks.extra == 0).then(|| Recall {
            numbers: self.n_pixels(),
            width: c.side,
            gain: 1.0,
            clamped: true,
            binary: false,
            cycles: c.cycles,
            shown: c.shown,
            blank: c.blank,
            test: c.test,
        })
    }

    fn halved(&self, stimulus: &[f32], stream: &mut Stream) -> Option<Vec<f32>> {
        let half = self.n_pixels() / 2;
        let hidden = stream.below(2) as usize * half;
        let mut cue = stimulus.to_vec();
        cue[hidden..hidden + half].fill(0.0);
        Some(cue)
    }

    fn with_stimuli(&self, n: usize) -> Result<Option<Box<dyn Task>>> {
        let config = ImagesConfig { images: n, ..self.config.clone() };
        config.order().validate("task.images")?;
        if let Source::Cifar(cifar) = &self.source
            && n > cifar.most()
        {
            let wanted =
                format!("at most {}, the images of {}", cifar.most(), config.data.display());
            return Err(Error::value("task.images", n.to_string(), wanted));
        }
        Ok(Some(Box::new(Images { config, ..self.clone() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Images {
        Images::new(
            &ImagesConfig { side: 8, ..ImagesConfig::paper() },
            &NetworkConfig::paper(),
            2,
            0,
        )
        .unwrap()
    }

    #[test]
    fn an_episode_is_the_papers() {
        let task = task();
        let episodes = task.episodes(5, Purpose::HeldOut, 3, 4);
        episodes.validate(&task.network).unwrap();
        assert_eq!(episodes.shape.n_steps, 201);
        let clamps = episodes.clamps.as_ref().unwrap();
        let mut halves = [0, 0];
        for e in 0..8 {
            let rows: Vec<&[f32]> = episodes.stimuli[e * 5 * 65..][..5 * 65].chunks(65).collect();
            assert!(rows.iter().all(|row| row[64] == 1.0), "the bias is always on");
            for image in &rows[..3] {
                let mean = image[..64].iter().sum::<f32>() / 64.0;
                let most = image[..64].iter().fold(0f32, |most, v| most.max(v.abs()));
                assert!(mean.abs() < 1e-6 && (most - 1.0).abs() < 1e-6, "{mean} {most}");
            }
            assert!(rows[3][..64].iter().all(|&v| v == 0.0), "blank");
            let target = &episodes.targets[e * 65..][..64];
            assert!(rows[..3].iter().any(|row| row[..64] == *target), "one of the images");
            let top = rows[4][..32] == target[..32] && rows[4][32..64].iter().all(|&v| v == 0.0);
            let low = rows[4][32..64] == target[32..] && rows[4][..32].iter().all(|&v| v == 0.0);
            assert!(top != low, "one half is seen, the other hidden");
            halves[usize::from(low)] += 1;
            for (row, clamp) in rows.iter().zip(clamps[e * 5 * 65..].chunks(65)) {
                assert!(row.iter().zip(clamp).all(|(&v, &c)| c == f32::from(u8::from(v != 0.0))));
            }
        }
        assert!(halves[0] > 0 && halves[1] > 0, "{halves:?}");
    }

    #[test]
    fn the_error_counts_hidden_pixels_only() {
        let task = task();
        let episodes = task.episodes(5, Purpose::HeldOut, 0, 1);
        let errors =
            |y_last: &[f32]| task.errors(&episodes, &Answers { y_last, ..Answers::default() });
        assert_eq!(errors(&episodes.targets).unwrap(), [0.0; 2]);
        let off: Vec<f32> = (0..2 * 65)
            .map(|k| {
                let hidden = task.is_hidden(&episodes, k / 65, k % 65);
                episodes.targets[k] + if hidden { 0.25 } else { 7.0 }
            })
            .collect();
        for error in errors(&off).unwrap() {
            assert!((error - 0.25).abs() < 1e-6, "{error}");
        }
    }

    /// Natural scenes lose power as frequency rises, about as 1/f^2: differences of
    /// neighbours are far smaller than differences across the image, at every scale.
    #[test]
    fn dead_leaves_have_structure_at_every_scale() {
        let side = 32;
        let mut sums = [0.0; 4];
        for k in 0..200 {
            let mut stream = Stream::new(1, Purpose::Training, 0, k);
            let mut image = vec![0.0; side * side];
            dead_leaves::draw(&mut stream, side, &mut image);
            assert!(image.iter().all(|v| (0.0..=1.0).contains(v)));
            for (sum, distance) in sums.iter_mut().zip([1, 2, 4, 8]) {
                for row in image.chunks(side) {
                    for x in 0..side - 8 {
                        *sum += f64::from(row[x] - row[x + distance]).powi(2);
                    }
                }
            }
        }
        for pair in sums.windows(2) {
            // white noise would give 1, a smooth ramp 4
            let growth = pair[1] / pair[0];
            assert!((1.15..2.2).contains(&growth), "{sums:?}");
        }
    }

    #[test]
    fn a_data_file_of_the_wrong_size_or_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().into();
        let config = ImagesConfig { data, images: 3, ..ImagesConfig::quick() };
        let image = [&[3][..], &[90; 3072]].concat();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        let message =
            || Images::new(&config, &NetworkConfig::paper(), 1, 0).unwrap_err().to_string();
        assert!(message().contains("no training images"), "{}", message());
        write("data_batch_1.bin", &image.repeat(3));
        assert!(message().contains("test_batch.bin"), "{}", message());
        write("test_batch.bin", &image.repeat(2));
        assert!(message().contains("3 images or more"), "{}", message());
        write("test_batch.bin", &image.repeat(3)[1..]);
        assert!(message().contains("multiple of 3073"), "{}", message());
        write("test_batch.bin", &[&image.repeat(2)[..], &[10], &image[1..]].concat());
        assert!(message().contains("label 10 of image 2"), "{}", message());
        write("test_batch.bin", &image.repeat(3));
        let task = Images::new(&config, &NetworkConfig::paper(), 1, 0).unwrap();
        assert!(task.with_stimuli(3).unwrap().is_some());
        let too_many = task.with_stimuli(4).err().unwrap().to_string();
        assert!(too_many.contains("at most 3"), "{too_many}");
        let odd = ImagesConfig { side: 20, ..config.clone() };
        assert!(
            Images::new(&odd, &NetworkConfig::paper(), 1, 0)
                .unwrap_err()
                .to_string()
                .contains("task.side")
        );
    }
}
