//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011). A stream is named by
//! (seed, purpose, network, episode) and depends on nothing else: not on the batch it is
//! drawn in, the device, or how often a run was restarted.

/// What a stream is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial parameters; the "episode" is the tensor's number.
    Parameters = 1,
    /// Training episodes.
    Training = 2,
    /// Held-out episodes, never trained on.
    HeldOut = 3,
    /// What all episodes of a run share; network and episode are 0.
    Shared = 4,
    /// Actions in training episodes.
    TrainingActions = 5,
    /// Actions in held-out episodes.
    HeldOutActions = 6,
    /// What is hidden in gradient steps at test time.
    TestTime = 7,
    /// What a task's data are and how they are split, alike for every seed.
    Data = 8,
    /// Noise of evolution; the "episode" is the number of the pair of members.
    Noise = 9,
}

impl Purpose {
    /// The purpose of the actions in episodes of this one.
    #[must_use]
    pub fn actions(self) -> Self {
        match self {
            Purpose::HeldOut => Purpose::HeldOutActions,
            _ => Purpose::TrainingActions,
        }
    }
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    /// (block, episode, network, purpose)
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of that name.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 64-bit seed")]
    pub fn new(seed: u64, purpose: Purpose, network: u32, episode: u32) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        Stream { key, counter: [0, episode, network, purpose as u32], block: [0; 4], used: 4 }
    }

    /// Block k of the stream, 128 random bits, wherever the stream stands.
    #[must_use]
    pub fn block(&self, k: u32) -> [u32; 4] {
        let [_, episode, network, purpose] = self.counter;
        philox([k, episode, network, purpose], self.key)
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1), a multiple of 2^-32.
    pub fn uniform(&mut self) -> f64 {
        f64::from(self.next_u32()) / 4_294_967_296.0
    }

    /// Uniform in 0..n, without bias (Lemire 2019).
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 64-bit product")]
    pub fn below(&mut self, n: u32) -> u32 {
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            let low = product as u32;
            if low >= n.wrapping_neg() % n {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher & Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let n = u32::try_from(last + 1).expect("fewer than 2^32 values");
            values.swap(last, self.below(n) as usize);
        }
    }
}

/// Ten rounds of Philox4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let [low0, high0] = wide_product(0xd251_1f53, counter[0]);
        let [low1, high1] = wide_product(0xcd9e_8d57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// Low and high half of a product.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a 64-bit product")]
fn wide_product(a: u32, b: u32) -> [u32; 2] {
    let product = u64::from(a) * u64::from(b);
    [product as u32, (product >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_test_vectors() {
        let ones = 0xffff_ffff;
        for (counter, key, wanted) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), wanted);
        }
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut stream = Stream::new(7, Purpose::Training, 0, 0);
        let draws: Vec<f64> = (0..40_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 40_000.0;
        // five standard errors: 5 / sqrt(40,000) and 5 sqrt(2 / 40,000)
        assert!(mean.abs() < 0.025, "{mean}");
        assert!((variance - 1.0).abs() < 0.036, "{variance}");
    }

    #[test]
    fn below_reaches_every_value_equally_often() {
        let mut stream = Stream::new(7, Purpose::Training, 1, 0);
        let mut counts = [0_i32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7) as usize] += 1;
        }
        // five standard deviations of a binomial count
        assert!(counts.iter().all(|n| (n - 10_000).abs() < 463), "{counts:?}");
    }
}
