//! The grid maze of Miconi et al. 2018 (section 4.5) and 2019: a reward lies in a cell that nobody sees.

use serde::{Deserialize, Serialize};

use crate::drive::{ActorCritic, Drive, Environment};
use crate::error::{Error, Result};
use crate::numbers::{index, single};
use crate::picture::Picture;
use crate::random::Stream;

/// The maze's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MazeConfig {
    /// Cells along a side, walls included, an odd number.
    pub size: usize,
    /// T, steps of an episode.
    pub steps: usize,
    /// What running into a wall costs.
    pub wall_penalty: f64,
    /// N, neurons of the plastic recurrent layer.
    pub neurons: usize,
    /// What rewards are turned into gradients by.
    pub objective: ActorCritic,
}

impl MazeConfig {
    /// The maze and the objective of 2019.
    #[must_use]
    pub fn paper() -> Self {
        let objective = ActorCritic { discount: 0.9, value: 0.1, concentration: 0.03 };
        MazeConfig { size: 13, steps: 200, wall_penalty: 0.0, neurons: 100, objective }
    }

    /// The maze and the objective of 2018.
    #[must_use]
    pub fn paper_2018() -> Self {
        let objective = ActorCritic { discount: 0.9, value: 0.03, concentration: 0.1 };
        MazeConfig { size: 11, steps: 250, wall_penalty: 0.1, objective, ..Self::paper() }
    }

    /// A maze of 9 x 9 cells: few enough that its reward is found by chance.
    #[must_use]
    pub fn quick() -> Self {
        MazeConfig { size: 9, steps: 100, neurons: 64, ..Self::paper() }
    }
}

/// What reaching the reward brings.
const REWARD: f32 = 10.0;
/// Numbers of an observation: the neighbourhood, one that is always 0, a bias, the time, the reward and
/// the action of the step before.
const OBSERVED: usize = 9 + 4 + 4;
/// Rows and columns that an action moves: up, down, left, right.
const MOVES: [[isize; 2]; 4] = [[-1, 0], [1, 0], [0, -1], [0, 1]];
/// The widest maze: cells fit the pictures and 32 bits.
const WIDEST: usize = 101;

/// A maze: walls around, and pillars where row and column are even; the centre is free.
#[derive(Clone, Debug)]
pub struct Grid {
    config: MazeConfig,
    /// Cells that are free, row by row.
    free: Vec<usize>,
}

impl Grid {
    /// The maze of these numbers.
    ///
    /// # Errors
    /// [`Error::Value`] naming the number that makes no sense.
    pub fn new(config: &MazeConfig) -> Result<Self> {
        let size = config.size;
        if size.is_multiple_of(2) || !(5..=WIDEST).contains(&size) {
            let wanted = format!("an odd number from 5 to {WIDEST}");
            return Err(Error::value("task.size", size.to_string(), wanted));
        }
        if config.steps == 0 {
            return Err(Error::value("task.steps", "0", "at least 1"));
        }
        if !(config.wall_penalty >= 0.0 && config.wall_penalty <= f64::from(f32::MAX)) {
            let found = config.wall_penalty.to_string();
            return Err(Error::value("task.wall_penalty", found, "a number of at least 0"));
        }
        let free = (0..size * size).filter(|&cell| !is_wall(size, cell)).collect();
        Ok(Grid { config: *config, free })
    }
}

fn centre(size: usize) -> usize {
    size / 2 * size + size / 2
}

fn is_wall(size: usize, cell: usize) -> bool {
    let (row, column) = (cell / size, cell % size);
    let outer = |k: usize| k == 0 || k == size - 1;
    let pillar = row.is_multiple_of(2) && column.is_multiple_of(2) && cell != centre(size);
    outer(row) || outer(column) || pillar
}

impl Drive for Grid {
    fn n_steps(&self) -> usize {
        self.config.steps
    }

    fn n_observed(&self) -> usize {
        OBSERVED
    }

    fn n_actions(&self) -> usize {
        MOVES.len()
    }

    fn environment(&self, _seed: u64, mut stream: Stream) -> Box<dyn Environment> {
        let start = centre(self.config.size);
        let reward = draw_other(&self.free, start, &mut stream);
        Box::new(Walk {
            grid: self.clone(),
            stream,
            reward,
            at: start,
            t: 0,
            before: None,
            path: vec![start],
        })
    }
}

/// A free cell that is not `other`.
fn draw_other(free: &[usize], other: usize, stream: &mut Stream) -> usize {
    let cell = free[stream.below(index(free.len() - 1)) as usize];
    if cell == other { free[free.len() - 1] } else { cell }
}

/// An episode in a maze.
struct Walk {
    grid: Grid,
    /// Where cells are drawn from.
    stream: Stream,
    reward: usize,
    at: usize,
    t: usize,
    /// The action and the reward of the step before.
    before: Option<(usize, f32)>,
    /// Every cell that the agent was in.
    path: Vec<usize>,
}

impl Environment for Walk {
    fn observe(&self, observation: &mut [f32]) {
        let size = self.grid.config.size;
        // the agent is never in the outer walls
        let corner = self.at - size - 1;
        for (k, bit) in observation[..9].iter_mut().enumerate() {
            let cell = corner + k / 3 * size + k % 3;
            *bit = f32::from(u8::from(is_wall(size, cell)));
        }
        observation[10] = 1.0;
        observation[11] =
            single(f64::from(index(self.t)) / f64::from(index(self.grid.config.steps)));
        if let Some((action, reward)) = self.before {
            observation[12] = reward;
            observation[13 + action] = 1.0;
        }
    }

    fn act(&mut self, action: usize) -> f32 {
        let MazeConfig { size, wall_penalty, .. } = self.grid.config;
        let [down, right] = MOVES[action];
        let there = self.at.wrapping_add_signed(down * size.cast_signed() + right);
        let mut reward = match is_wall(size, there) {
            true => -single(wall_penalty),
            false => {
                self.at = there;
                0.0
            }
        };
        self.path.push(self.at);
        if self.at == self.reward {
            reward += REWARD;
            self.at = draw_other(&self.grid.free, self.reward, &mut self.stream);
            self.path.push(self.at);
        }
        self.t += 1;
        self.before = Some((action, reward));
        reward
    }

    /// The maze in four quarters of the episode: walls black, the reward white, other cells the lighter
    /// the longer the agent was in them.
    fn picture(&self) -> Option<Picture> {
        let size = self.grid.config.size;
        let quarter = self.path.len().div_ceil(4);
        let tiles = self.path.chunks(quarter).enumerate().map(|(k, path)| {
            let mut visits = vec![0.0_f32; size * size];
            path.iter().for_each(|&cell| visits[cell] += 1.0);
            let most = visits.iter().copied().fold(1.0, f32::max);
            let shade = |cell: usize| match () {
                () if is_wall(size, cell) => -1.0,
                () if cell == self.reward => 1.0,
                () => -0.6 + 1.2 * (visits[cell] / most).sqrt(),
            };
            (format!("quarter {}", k + 1), (0..size * size).map(shade).collect())
        });
        Some(Picture { width: size, tiles: tiles.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn grid(size: usize) -> Grid {
        Grid::new(&MazeConfig { size, wall_penalty: 0.1, ..MazeConfig::paper() }).unwrap()
    }

    #[test]
    fn the_maze_of_the_paper_has_these_free_cells() {
        // 11 x 11 cells inside the outer walls, of which 5 x 5 are pillars, and the centre is free
        assert_eq!(grid(13).free.len(), 121 - 25 + 1);
        // the centre is no pillar: row and column 5
        assert_eq!(grid(11).free.len(), 81 - 16);
    }

    #[test]
    fn sizes_that_make_no_maze_are_refused() {
        for size in [0, 3, 8, 103] {
            let config = MazeConfig { size, ..MazeConfig::paper() };
            assert!(Grid::new(&config).is_err(), "{size}");
        }
    }

    #[test]
    fn an_agent_stays_out_of_walls_and_is_moved_from_the_reward_every_time() {
        let grid = grid(9);
        for episode in 0..50 {
            let stream = || Stream::new(1, Purpose::Training, 0, episode);
            let mut draws = stream();
            let reward = draw_other(&grid.free, centre(9), &mut draws);
            assert_ne!(reward, centre(9));
            let mut walk = grid.environment(1, stream());
            let mut actions = Stream::new(1, Purpose::Training.actions(), 0, episode);
            let mut at = centre(9);
            for t in 0..200 {
                let mut seen = vec![0.0; OBSERVED];
                walk.observe(&mut seen);
                // a port of its own of what an agent sees
                let (row, column) = (at / 9, at % 9);
                let wall = |row: usize, column: usize| {
                    let even = row.is_multiple_of(2) && column.is_multiple_of(2);
                    let pillar = even && (row, column) != (4, 4);
                    row == 0 || column == 0 || row == 8 || column == 8 || pillar
                };
                for (k, bit) in seen[..9].iter().enumerate() {
                    let is = wall(row + k / 3 - 1, column + k % 3 - 1);
                    assert_eq!(*bit == 1.0, is, "step {t}, bit {k}");
                }
                assert!(!wall(row, column));
                assert_eq!(seen[11], single(f64::from(t) / 200.0));
                let action = actions.below(4) as usize;
                let (row, column) = match action {
                    0 => (row - 1, column),
                    1 => (row + 1, column),
                    2 => (row, column - 1),
                    _ => (row, column + 1),
                };
                let mut wanted = if wall(row, column) { -0.1 } else { 0.0 };
                if !wall(row, column) {
                    at = row * 9 + column;
                }
                if at == reward {
                    wanted += 10.0;
                    at = draw_other(&grid.free, reward, &mut draws);
                    assert_ne!(at, reward);
                }
                assert_eq!(walk.act(action), wanted);
            }
        }
    }
}
