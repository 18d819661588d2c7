//! What the CPU engine says that a job needs, against what it takes, each job in a process that
//! runs nothing else: every allocation is counted, and of large buffers, which come from the
//! system in pages, the process's size tells.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hebbian::engine::Want;
use hebbian::engine::cpu;
use hebbian::model::{
    Activation, AlphaSharing, Episodes, Loss, Network, Optimiser, Parameters, Rule, Schedule,
    Shape, Sharing, Signals, Stages, StepSize,
};

const TEST: &str = "an_update_takes_the_memory_that_was_planned_within_5_percent";

/// The environment variable that names the job of a process.
const JOB: &str = "HEBBIAN_TEST_JOB";

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: memory comes from the system's allocator and goes back to it as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes of the process that are of no file, as the system counts them.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    1024 * line.trim_end_matches("kB").trim().parse::<usize>().unwrap()
}

/// Bytes planned for an update, and the most that were in use at a time.
fn planned_and_taken(network: &Network, shape: Shape) -> (f64, f64) {
    let mut parameters = Parameters::<f32>::zeros(network);
    parameters.values_mut().fill(0.01);
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let anonymous_before = anonymous();
    let all = network.n_networks * shape.n_batch;
    let n = network.n_post;
    let episodes = Episodes {
        shape,
        stimuli: vec![0.5; all * shape.n_stimuli * n],
        clamps: shape.clamped.then(|| vec![0.0; all * shape.n_stimuli * n]),
        shown: vec![0; all * shape.n_steps],
        targets: vec![0.5; all * shape.n_targets * n],
        loss_weights: vec![1.0; all * shape.n_targets * n],
        scored: vec![0; all * shape.n_steps],
        pre: (!network.recurrent).then(|| vec![0.1; all * shape.n_steps * network.n_pre]),
        y0: None,
        h0: None,
        e0: None,
        signals: Signals::default(),
    };
    let mut engine = cpu::open::<f32>(network).unwrap();
    let program = engine.program(shape, Want::UPDATE).unwrap();
    let planned = engine.describe(&program).unwrap().memory_needed;
    engine.set_parameters(&parameters).unwrap();
    let optimiser = Optimiser::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let schedule = Schedule { rate: 0.01, decay: 1.0, every: 1, max_norm: 0.0 };
    engine.update(&episodes, StepSize::at(optimiser, &schedule, 0)).unwrap();
    engine.reports(true).unwrap();
    let allocated = MOST.load(Relaxed) - before;
    // of both the larger: pages hold what is allocated, and what is mapped
    let taken = allocated.max(anonymous() - anonymous_before);
    (planned as f64, taken as f64)
}

#[test]
fn an_update_takes_the_memory_that_was_planned_within_5_percent() {
    let plain = Network {
        n_networks: 1,
        n_pre: 0,
        n_post: 0,
        recurrent: true,
        rule: Rule::Decay,
        activation: Activation::Tanh,
        loss: Loss::Squared,
        clip: None,
        alpha: AlphaSharing::PerConnection,
        eta: Sharing::PerNetwork,
        stages: Stages::default(),
    };
    let square = |n: usize| Network { n_pre: n, n_post: n, ..plain.clone() };
    let two = |n: usize| Network { rule: Rule::Retroactive, ..square(n) };
    let clipped = |network: Network| Network { clip: Some(0.5), ..network };
    let layer = Network { recurrent: false, n_pre: 700, n_post: 90, ..plain.clone() };
    let several = Network { n_networks: 5, ..square(97) };
    let jobs = [
        (square(1001), 1, 106),
        (square(1001), 4, 106),
        (square(100), 64, 100),
        (square(51), 256, 11),
        (square(301), 3, 5000),
        (two(203), 9, 60),
        (two(43), 64, 40),
        (clipped(square(150)), 6, 50),
        (clipped(two(99)), 6, 50),
        (clipped(square(39)), 350, 80),
        (layer, 20, 30),
        (several, 7, 21),
    ];
    if let Ok(job) = std::env::var(JOB) {
        let (network, n_batch, n_steps) = &jobs[job.parse::<usize>().unwrap()];
        let (n_batch, n_steps) = (*n_batch, *n_steps);
        let shape = Shape { n_batch, n_steps, n_stimuli: 7, n_targets: 2, clamped: true };
        let (planned, taken) = planned_and_taken(network, shape);
        println!("{planned} planned, {taken} taken,");
        return;
    }
    let pages = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    // a plan counts whole large pages, of which a system without them takes a part
    let large_pages = pages.is_ok_and(|pages| !pages.contains("[never]"));
    for (job, (network, n_batch, n_steps)) in jobs.iter().enumerate() {
        let answer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(JOB, job.to_string())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&answer.stdout);
        let number = |word: &str| -> f64 {
            let before = out.split(word).next().filter(|_| out.contains(word));
            before.and_then(|out| out.split_whitespace().last()?.parse().ok()).expect(&out)
        };
        let (planned, taken) = (number(" planned,"), number(" taken,"));
        let off = taken / planned - 1.0;
        println!(
            "{:11} {} M {:4} N {:4} T {n_steps:4} B {n_batch:3}: {planned} bytes planned, {taken} \
             taken, {:+.1} %",
            network.rule.name(),
            if network.clip.is_some() { "clip" } else { "    " },
            network.n_pre,
            network.n_post,
            100.0 * off
        );
        assert!(off <= 0.05, "more than planned");
        assert!(off >= -0.05 || !large_pages, "less than planned");
    }
}
