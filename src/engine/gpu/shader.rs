//! Shaders: files of `shaders/` put together from `//!include`, `//!constant` and `//!unroll`
//! lines, with errors that point at our own file and line.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::Storage;
use crate::engine::gpu::equations::Equations;
use crate::engine::gpu::tile::{SWEEP_TILE, Tile};
use crate::error::{Error, Result};

/// The shared files, by the names that `//!include` gives them; `lib/stored.wgsl` stands for
/// one of two, see [`Form`].
pub(crate) const LIBRARY: [(&str, &str); 28] = [
    ("lib/adjoint.wgsl", include_str!("../../../shaders/lib/adjoint.wgsl")),
    ("lib/column_sums.wgsl", include_str!("../../../shaders/lib/column_sums.wgsl")),
    ("lib/eight.wgsl", include_str!("../../../shaders/lib/eight.wgsl")),
    ("lib/fetch.wgsl", include_str!("../../../shaders/lib/fetch.wgsl")),
    ("lib/general.wgsl", include_str!("../../../shaders/lib/general.wgsl")),
    ("lib/general_traces.wgsl", include_str!("../../../shaders/lib/general_traces.wgsl")),
    ("lib/job.wgsl", include_str!("../../../shaders/lib/job.wgsl")),
    ("lib/leak.wgsl", include_str!("../../../shaders/lib/leak.wgsl")),
    ("lib/load.wgsl", include_str!("../../../shaders/lib/load.wgsl")),
    ("lib/marks.wgsl", include_str!("../../../shaders/lib/marks.wgsl")),
    ("lib/math.wgsl", include_str!("../../../shaders/lib/math.wgsl")),
    ("lib/optimiser.wgsl", include_str!("../../../shaders/lib/optimiser.wgsl")),
    ("lib/product_sums.wgsl", include_str!("../../../shaders/lib/product_sums.wgsl")),
    ("lib/quads.wgsl", include_str!("../../../shaders/lib/quads.wgsl")),
    ("lib/reduce.wgsl", include_str!("../../../shaders/lib/reduce.wgsl")),
    ("lib/resident.wgsl", include_str!("../../../shaders/lib/resident.wgsl")),
    ("lib/row_sums.wgsl", include_str!("../../../shaders/lib/row_sums.wgsl")),
    ("lib/rows.wgsl", include_str!("../../../shaders/lib/rows.wgsl")),
    ("lib/rule.wgsl", include_str!("../../../shaders/lib/rule.wgsl")),
    ("lib/residual.wgsl", include_str!("../../../shaders/lib/residual.wgsl")),
    ("lib/stored_f16.wgsl", include_str!("../../../shaders/lib/stored_f16.wgsl")),
    ("lib/stored_f32.wgsl", include_str!("../../../shaders/lib/stored_f32.wgsl")),
    ("lib/sums.wgsl", include_str!("../../../shaders/lib/sums.wgsl")),
    ("lib/tile.wgsl", include_str!("../../../shaders/lib/tile.wgsl")),
    ("lib/together.wgsl", include_str!("../../../shaders/lib/together.wgsl")),
    ("lib/trace.wgsl", include_str!("../../../shaders/lib/trace.wgsl")),
    ("lib/weights.wgsl", include_str!("../../../shaders/lib/weights.wgsl")),
    ("lib/window.wgsl", include_str!("../../../shaders/lib/window.wgsl")),
];

/// `pack2x16float` is in every WebGPU device.
const CAPABILITIES: naga::valid::Capabilities =
    naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// What a shader's text depends on: types and sizes of arrays, which overrides cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// How traces are stored: `//!include lib/stored.wgsl`.
    pub(crate) traces: Storage,
    /// `//!constant TRACES`: of the rule, 1 to 4.
    pub(crate) n_traces: u32,
    pub(crate) tile: Tile,
    /// Where the general plan runs the network's rule: `//!include rule/NAME.wgsl`.
    pub(crate) rule: Option<Arc<Equations>>,
}

impl Form {
    fn constant(&self, name: &str) -> Option<u32> {
        match name {
            "TRACES" => Some(self.n_traces),
            "ROWS" => Some(self.tile.rows),
            "WIDTH" => Some(self.tile.width),
            "LANES" => Some(self.tile.lanes),
            "PLACES" => Some(self.tile.places),
            "ROW_GROUPS" => Some(self.tile.row_groups),
            "COLUMNS" => Some(self.tile.columns),
            "OWN" => Some(self.tile.row_groups * self.tile.columns),
            "WINDOW" => Some(self.tile.window),
            "BEFORE" => Some(self.tile.window - 1),
            "FETCHES" => Some(self.tile.fetches()),
            "WHOLE" => Some(u32::from(self.tile != SWEEP_TILE)),
            "PLACES_OF_QUARTER" => Some(self.tile.places / 4),
            "AHEAD" => Some(u32::from(self.tile.has_room(self.n_traces))),
            _ => None,
        }
    }
}

/// A whole shader and where its lines come from.
pub(crate) struct Source {
    pub(crate) text: String,
    /// File and line of each line.
    origins: Vec<(String, usize)>,
}

/// A line of a shader and where it stands.
#[derive(Clone)]
struct Line {
    text: String,
    file: String,
    number: usize,
}

impl Line {
    fn error(&self, message: String) -> Error {
        Error::Shader { file: self.file.clone(), line: self.number, message }
    }
}

impl Source {
    /// Puts the shader `stem` together. Lines of the form
    ///
    /// ```text
    /// //!include lib/NAME.wgsl      stand for that file, rule/NAME.wgsl for one made of the network's rule
    /// //!constant NAME              for `const NAME = ...u;`, a number of the form
    /// //!unroll k NAME ... //!end   for the lines between, once for each $k below NAME, or
    ///                               below a number that stands in its place
    /// ```
    pub(crate) fn compose(stem: &str, text: &str, form: &Form) -> Result<Self> {
        let file = format!("{stem}.wgsl");
        let lines_of = |file: &str, text: &str| -> Vec<Line> {
            let line = |(k, text): (usize, &str)| Line {
                text: text.into(),
                file: file.into(),
                number: k + 1,
            };
            text.lines().enumerate().map(line).collect()
        };
        let mut lines = Vec::new();
        for line in lines_of(&file, text) {
            let Some(name) = line.text.strip_prefix("//!include ") else {
                lines.push(line);
                continue;
            };
            let name = match (name, form.traces) {
                ("lib/stored.wgsl", Storage::F32) => "lib/stored_f32.wgsl",
                ("lib/stored.wgsl", Storage::F16) => "lib/stored_f16.wgsl",
                _ => name,
            };
            let shared = LIBRARY.iter().find(|(known, _)| *known == name).copied();
            let Some((name, text)) = shared.or_else(|| form.rule.as_ref()?.file(name)) else {
                return Err(line.error(format!("no shared file {name}")));
            };
            lines.extend(lines_of(name, text));
        }
        let mut source = Source { text: String::new(), origins: Vec::new() };
        source.expand(&lines, form)?;
        Ok(source)
    }

    /// Appends `lines`, constants and loops written out.
    fn expand(&mut self, lines: &[Line], form: &Form) -> Result<()> {
        let mut k = 0;
        while k < lines.len() {
            let line = &lines[k];
            let mut words = line.text.split_whitespace();
            k += 1;
            match words.next() {
                Some("//!constant") => {
                    let name = words.next().unwrap_or_default();
                    let Some(value) = form.constant(name) else {
                        return Err(line.error(format!("no constant {name}")));
                    };
                    self.push(&format!("const {name} = {value}u;"), line);
                }
                Some("//!unroll") => {
                    let (name, count) = (words.next().unwrap_or_default(), words.next());
                    let times = |count: &str| form.constant(count).or(count.parse().ok());
                    let Some(count) = count.and_then(times) else {
                        return Err(line.error("no such number of times".into()));
                    };
                    let from = k;
                    let mut depth = 1;
                    while depth > 0 {
                        let Some(inner) = lines.get(k) else {
                            return Err(line.error("no //!end".into()));
                        };
                        match inner.text.split_whitespace().next() {
                            Some("//!unroll") => depth += 1,
                            Some("//!end") => depth -= 1,
                            _ => {}
                        }
                        k += 1;
                    }
                    let name = format!("${name}");
                    for index in 0..count {
                        let index = format!("{index}u");
                        let body: Vec<Line> = lines[from..k - 1]
                            .iter()
                            .map(|l| Line { text: l.text.replace(&name, &index), ..l.clone() })
                            .collect();
                        self.expand(&body, form)?;
                    }
                }
                _ => self.push(&line.text, line),
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &str, line: &Line) {
        self.text.push_str(text);
        self.text.push('\n');
        self.origins.push((line.file.clone(), line.number));
    }

    /// The text of a shader that fills its workgroup memory with NaN before it begins: what a kernel
    /// reads before it writes is found, where the driver shows zeros too.
    pub(crate) fn with_dirty_workgroup(&self) -> String {
        let mut fill = String::new();
        for line in self.text.lines() {
            let declared = line.strip_prefix("var<workgroup> ").and_then(|l| l.split_once(": "));
            if let Some((name, kind)) = declared {
                fill += &filled(name, kind.trim_end_matches(';'), 0);
            }
        }
        if fill.is_empty() {
            return self.text.clone();
        }
        let main = self.text.find("fn main(").expect("an entry point");
        let body = main + self.text[main..].find(") {\n").expect("a body") + 4;
        // a NaN may not be a constant of WGSL
        format!(
            "var<private> dirt: u32 = 0x7fc00123u;\n\
             fn dirty_workgroup() {{\nlet nan = bitcast<f32>(dirt);\n{fill}}}\n\
             {}if (local == 0u) {{ dirty_workgroup(); }}\nworkgroupBarrier();\n{}",
            &self.text[..body],
            &self.text[body..]
        )
    }

    /// Parses and validates.
    pub(crate) fn module(&self) -> Result<(naga::Module, naga::valid::ModuleInfo)> {
        let module = naga::front::wgsl::parse_str(&self.text).map_err(|e| {
            let line = e.location(&self.text).map_or(1, |at| at.line_number as usize);
            self.error(line, e.message())
        })?;
        let flags = naga::valid::ValidationFlags::all();
        let mut validator = naga::valid::Validator::new(flags, CAPABILITIES);
        let info = validator.validate(&module).map_err(|e| {
            let line = e.location(&self.text).map_or(1, |at| at.line_number as usize);
            let cause = std::error::Error::source(e.as_inner()).map(|s| format!(": {s}"));
            self.error(line, &format!("{}{}", e.as_inner(), cause.unwrap_or_default()))
        })?;
        Ok((module, info))
    }

    /// An error at a line of the whole text, told at its own file and line.
    fn error(&self, line: usize, message: &str) -> Error {
        let known = line.saturating_sub(1).min(self.origins.len().saturating_sub(1));
        let (file, line) = self.origins.get(known).cloned().unwrap_or_default();
        Error::Shader { file, line, message: message.into() }
    }
}

/// WGSL that sets `place`, of type `kind`, to NaN: a number, a vector, or an array of either.
fn filled(place: &str, kind: &str, depth: usize) -> String {
    let array = kind.strip_prefix("array<").and_then(|kind| kind.strip_suffix('>'));
    let Some((element, n)) = array.and_then(|array| array.rsplit_once(", ")) else {
        return format!("{place} = {kind}(nan);\n");
    };
    let k = format!("k{depth}");
    let inner = filled(&format!("{place}[{k}]"), element, depth + 1);
    format!("for (var {k} = 0u; {k} < {n}; {k} = {k} + 1u) {{\n{inner}}}\n")
}

/// The override constants that a shader's outcome depends on.
pub(crate) fn used_overrides(module: &naga::Module) -> BTreeSet<String> {
    let mut module = module.clone();
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    module.overrides.iter().filter_map(|(_, constant)| constant.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form {
        traces: Storage::F32,
        n_traces: 1,
        tile: Tile { row_groups: 2, columns: 3, ..SWEEP_TILE },
        rule: None,
    };

    #[test]
    fn loops_are_written_out_and_constants_filled_in() {
        let text = "//!constant COLUMNS\n//!unroll c COLUMNS\n//!unroll g ROW_GROUPS\na[$g][$c];\n\
                    //!end\n//!end\n";
        let source = Source::compose("adam", text, &FORM).unwrap();
        assert_eq!(source.text.lines().next(), Some("const COLUMNS = 3u;"));
        assert_eq!(source.text.lines().count(), 7);
        assert_eq!(source.text.lines().last(), Some("a[1u][2u];"));
        let source = Source::compose("adam", "//!unroll k 2\nb[$k];\n//!end\n", &FORM).unwrap();
        assert_eq!(source.text, "b[0u];\nb[1u];\n");
    }

    #[test]
    fn an_error_names_our_own_file_and_line() {
        let text = "// a comment\n//!include lib/reduce.wgsl\nfn broken() -> f32 { return 1u; }\n";
        match Source::compose("adam", text, &FORM).unwrap().module().unwrap_err() {
            Error::Shader { file, line, .. } => assert_eq!((file.as_str(), line), ("adam.wgsl", 3)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_unknown_include_is_an_error() {
        let error = Source::compose("adam", "//!include lib/nothing.wgsl\n", &FORM).err().unwrap();
        assert!(error.to_string().contains("adam.wgsl:1"), "{error}");
    }
}
