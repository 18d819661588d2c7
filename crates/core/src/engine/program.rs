//! Programs: a plan and its buffers, made once for batches of one shape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Want;
use crate::error::{Error, Result};
use crate::model::Shape;

/// A plan with its buffers in an engine, for batches of one shape; see
/// [`Engine::program`](crate::engine::Engine::program).
///
/// Clones are one program. Its buffers stay as long as a clone does. After that the engine keeps a few
/// small programs for batches to come; others go when it makes its next one.
#[derive(Clone, Debug)]
pub struct Program(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    engine: u64,
    number: u64,
    shape: Shape,
    want: Want,
    bytes: u64,
}

impl Program {
    /// The shape of its batches.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    /// What its batches can give.
    #[must_use]
    pub fn want(&self) -> Want {
        self.0.want
    }

    /// Refuses a batch of another shape, and to give what its buffers have no room for.
    ///
    /// # Errors
    /// [`Error::Value`] with what was given and what the program has.
    pub fn check(&self, shape: Shape, want: Want) -> Result<()> {
        if shape != self.0.shape {
            let wanted = format!("{}, as the program has them", self.0.shape);
            return Err(Error::value("episodes", shape.to_string(), wanted));
        }
        if !self.0.want.covers(want) {
            let (found, wanted) = (format!("{:?}", self.0.want), format!("one made for {want:?}"));
            return Err(Error::value("program", found, wanted));
        }
        Ok(())
    }

    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// How a program lays steps and traces over its device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanDescription {
    /// Any rule and any episode; every step moves the traces.
    General {
        /// Steps between traces that are kept throughout.
        window: usize,
        /// How a GPU keeps the batch; none on the CPU.
        batch: Option<GpuBatch>,
    },
    /// On the CPU: a step reads the traces at the start of its window and writes none.
    Lazy {
        /// Steps of a window.
        window: usize,
        /// What threads and lanes share.
        shares: CpuShares,
        /// Windows whose traces are recomputed from those of the first of them; 1: none are.
        block: usize,
    },
    /// On the CPU: every step moves the traces.
    Stepped {
        /// Steps of a window.
        window: usize,
        /// What threads and lanes share.
        shares: CpuShares,
    },
    /// On a GPU: a workgroup runs a whole episode, the traces in its registers.
    Resident {
        /// Steps of a window.
        window: usize,
        /// Windows of a dispatch.
        span: usize,
        /// How the batch is kept.
        batch: GpuBatch,
    },
    /// On a GPU: a step is a dispatch, through which the traces stream.
    Streamed {
        /// Steps of a window.
        window: usize,
        /// Episodes of a workgroup.
        episodes: usize,
        /// How the batch is kept.
        batch: GpuBatch,
    },
}

/// What the threads of a CPU share, and what lies in the lanes of its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuShares {
    /// Whether threads share the columns of one episode, else each has episodes of its own.
    pub threads_over_columns: bool,
    /// Whether lanes are episodes, else neurons.
    pub lanes_over_episodes: bool,
}

/// How a GPU keeps a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuBatch {
    /// Whether traces are stored in f16.
    pub half: bool,
    /// Parts that run one after another.
    pub parts: usize,
}

impl PlanDescription {
    /// Whether it is the plan of `other` but for what follows from the number of steps and episodes.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        use PlanDescription::{Lazy, Stepped};
        match (self, other) {
            (
                Lazy { window, shares, .. },
                Lazy { window: other_window, shares: other_shares, .. },
            )
            | (
                Stepped { window, shares },
                Stepped { window: other_window, shares: other_shares },
            ) => (window, shares) == (other_window, other_shares),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for PlanDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanDescription::General { window, batch: None } => {
                write!(f, "general, windows of {window} steps, threads over episodes")
            }
            PlanDescription::General { window, batch: Some(batch) } => {
                write!(f, "general, windows of {window} steps{batch}")
            }
            PlanDescription::Lazy { window, shares, block } => {
                write!(f, "lazy, windows of {window} steps, {shares}")?;
                if *block > 1 {
                    write!(f, ", traces in blocks of {block} windows")?;
                }
                Ok(())
            }
            PlanDescription::Stepped { window, shares } => {
                write!(f, "stepped, windows of {window} steps, {shares}")
            }
            PlanDescription::Resident { window, span, batch } => {
                write!(f, "resident, windows of {window} steps, {span} a dispatch{batch}")
            }
            PlanDescription::Streamed { window, episodes, batch } => write!(
                f,
                "streamed, windows of {window} steps, {episodes} episodes per workgroup{batch}"
            ),
        }
    }
}

impl fmt::Display for CpuShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads_over_columns { "columns" } else { "episodes" };
        let lanes = if self.lanes_over_episodes { "episodes" } else { "neurons" };
        write!(f, "threads over {threads}, lanes over {lanes}")
    }
}

impl fmt::Display for GpuBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.half {
            write!(f, ", traces in f16")?;
        }
        match self.parts {
            1 => Ok(()),
            parts => write!(f, ", the batch in {parts} parts"),
        }
    }
}

/// A number that no other engine of this process has.
#[doc(hidden)]
pub fn engine_number() -> u64 {
    static ENGINES: AtomicU64 = AtomicU64::new(0);
    ENGINES.fetch_add(1, Ordering::Relaxed)
}

/// Programs that nobody holds and an engine keeps, so that training, scoring and a life that take
/// turns make no buffers anew: as many, and none that takes more bytes, for a device may not hold two.
const KEPT: usize = 3;
const KEPT_BYTES: u64 = 128 << 20;

/// The programs of an engine, with what it made for each; the one used last at the end.
#[doc(hidden)]
#[derive(Debug)]
pub struct Programs<T> {
    engine: u64,
    all: Vec<(Program, T)>,
    next: u64,
}

impl<T> Default for Programs<T> {
    fn default() -> Self {
        Programs { engine: engine_number(), all: Vec::new(), next: 0 }
    }
}

impl<T> Programs<T> {
    /// One that serves such batches, if there is one.
    pub fn find(&mut self, shape: Shape, want: Want) -> Option<Program> {
        let serves =
            |(program, _): &(Program, T)| program.shape() == shape && program.want().covers(want);
        let at = self.all.iter().position(serves)?;
        self.all[at..].rotate_left(1);
        self.all.last().map(|(program, _)| program.clone())
    }

    /// Lets go of programs that nobody holds: of `all` of them, or of large ones and of all but the
    /// last few.
    pub fn let_go(&mut self, all: bool) {
        let mut idle = self.all.iter().filter(|(program, _)| !program.is_held()).count();
        self.all.retain(|(program, _)| {
            let large = program.0.bytes > KEPT_BYTES;
            let kept = program.is_held() || !(all || large || idle > KEPT);
            idle -= usize::from(!program.is_held());
            kept
        });
    }

    /// Takes a program in that needs so many bytes.
    pub fn add(&mut self, shape: Shape, want: Want, bytes: u64, made: T) -> Program {
        let (engine, number) = (self.engine, self.next);
        self.next += 1;
        let program = Program(Arc::new(Facts { engine, number, shape, want, bytes }));
        self.all.push((program.clone(), made));
        program
    }

    /// Where a program of this engine is.
    fn at(&self, program: &Program) -> Result<usize> {
        let number = program.0.number;
        let own = program.0.engine == self.engine;
        let at = self.all.iter().position(|(own, _)| own.0.number == number);
        at.filter(|_| own).ok_or_else(|| {
            let found = format!("one of engine {}", program.0.engine);
            Error::value("program", found, format!("one of engine {}, which runs it", self.engine))
        })
    }

    /// What was made for a program.
    ///
    /// # Errors
    /// [`Error::Value`] for a program of another engine.
    pub fn get(&mut self, program: &Program) -> Result<&mut T> {
        let at = self.at(program)?;
        Ok(&mut self.all[at].1)
    }

    /// Takes out what was made for a program, to be [put back](Programs::put).
    ///
    /// # Errors
    /// As [`Programs::get`].
    pub fn take(&mut self, program: &Program) -> Result<T> {
        let at = self.at(program)?;
        Ok(self.all.remove(at).1)
    }

    /// Puts it back.
    pub fn put(&mut self, program: &Program, made: T) {
        self.all.push((program.clone(), made));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(programs: &mut Programs<u64>, n_batch: usize, bytes: u64) -> Program {
        let shape = Shape { n_batch, n_steps: 1, n_stimuli: 1, n_targets: 1, clamped: false };
        programs.add(shape, Want::default(), bytes, bytes)
    }

    #[test]
    fn programs_stay_while_they_are_held_and_a_few_small_ones_after_that() {
        let mut programs = Programs::default();
        let held = add(&mut programs, 1, KEPT_BYTES + 1);
        for n in 2..9 {
            add(&mut programs, n, 8);
        }
        let shape = |n_batch| Shape { n_batch, ..held.shape() };
        // used last
        assert!(programs.find(shape(2), Want::default()).is_some());
        programs.let_go(false);
        let kept: Vec<usize> = programs.all.iter().map(|(p, _)| p.shape().n_batch).collect();
        assert_eq!(kept, [1, 7, 8, 2]);
        let back = Want { gradients: true, ..Want::default() };
        assert!(programs.find(shape(2), back).is_none());
        programs.let_go(true);
        assert_eq!(programs.all.len(), 1);
        assert_eq!(*programs.get(&held).unwrap(), KEPT_BYTES + 1);
        drop(held);
        programs.let_go(false);
        assert!(programs.all.is_empty());
    }

    #[test]
    fn a_program_of_another_engine_and_a_batch_of_another_shape_are_refused_by_name() {
        let (mut one, mut two) = (Programs::default(), Programs::default());
        let (of_one, _) = (add(&mut one, 4, 8), add(&mut two, 4, 8));
        let message = two.get(&of_one).unwrap_err().to_string();
        assert!(message.contains(&format!("engine {}", one.engine)), "{message}");
        assert!(message.contains(&format!("engine {}", two.engine)), "{message}");
        let shape = Shape { n_steps: 7, ..of_one.shape() };
        let message = of_one.check(shape, Want::default()).unwrap_err().to_string();
        assert!(message.contains("7 steps") && message.contains("1 steps"), "{message}");
        let message = of_one.check(of_one.shape(), Want::UPDATE).unwrap_err().to_string();
        assert!(message.contains("gradients: true"), "{message}");
    }
}
