//! Shaders: files of `shaders/` put together from `//!include` lines, with errors that
//! point at our own file and line.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// The shared files, by the names that `//!include` gives them.
pub(crate) const LIBRARY: [(&str, &str); 7] = [
    ("lib/adjoint.wgsl", include_str!("../../../shaders/lib/adjoint.wgsl")),
    ("lib/job.wgsl", include_str!("../../../shaders/lib/job.wgsl")),
    ("lib/math.wgsl", include_str!("../../../shaders/lib/math.wgsl")),
    ("lib/optimiser.wgsl", include_str!("../../../shaders/lib/optimiser.wgsl")),
    ("lib/reduce.wgsl", include_str!("../../../shaders/lib/reduce.wgsl")),
    ("lib/rule.wgsl", include_str!("../../../shaders/lib/rule.wgsl")),
    ("lib/trace.wgsl", include_str!("../../../shaders/lib/trace.wgsl")),
];

/// A whole shader and where its lines come from.
pub(crate) struct Source {
    pub(crate) text: String,
    /// (first line here, file, first line there), in order.
    parts: Vec<(usize, String, usize)>,
}

impl Source {
    /// Puts the shader `stem` together; an include stands where its line stands.
    pub(crate) fn compose(stem: &str, text: &str) -> Result<Self> {
        let file = format!("{stem}.wgsl");
        let mut source = Source { text: String::new(), parts: Vec::new() };
        let mut n_lines = 0;
        let mut push = |source: &mut Source, file: &str, first: usize, lines: &[&str]| {
            source.parts.push((n_lines + 1, file.into(), first));
            for line in lines {
                source.text.push_str(line);
                source.text.push('\n');
            }
            n_lines += lines.len();
        };
        for (k, line) in text.lines().enumerate() {
            let Some(name) = line.strip_prefix("//!include ") else {
                push(&mut source, &file, k + 1, &[line]);
                continue;
            };
            let Some((name, text)) = LIBRARY.iter().find(|(known, _)| *known == name.trim()) else {
                let message = format!("no shared file {name}");
                return Err(Error::Shader { file, line: k + 1, message });
            };
            push(&mut source, name, 1, &text.lines().collect::<Vec<_>>());
        }
        Ok(source)
    }

    /// Parses and validates.
    pub(crate) fn module(&self) -> Result<(naga::Module, naga::valid::ModuleInfo)> {
        let module = naga::front::wgsl::parse_str(&self.text).map_err(|e| {
            let line = e.location(&self.text).map_or(1, |at| at.line_number as usize);
            self.error(line, e.message())
        })?;
        let flags = naga::valid::ValidationFlags::all();
        let mut validator =
            naga::valid::Validator::new(flags, naga::valid::Capabilities::default());
        let info = validator.validate(&module).map_err(|e| {
            let line = e.location(&self.text).map_or(1, |at| at.line_number as usize);
            let cause = std::error::Error::source(e.as_inner()).map(|s| format!(": {s}"));
            self.error(line, &format!("{}{}", e.as_inner(), cause.unwrap_or_default()))
        })?;
        Ok((module, info))
    }

    /// An error at a line of the whole text, told at its own file and line.
    fn error(&self, line: usize, message: &str) -> Error {
        let (here, file, there) =
            self.parts.iter().rev().find(|(first, ..)| *first <= line).unwrap_or(&self.parts[0]);
        let file = file.clone();
        Error::Shader { file, line: line - here + there, message: message.into() }
    }
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

    #[test]
    fn an_error_names_our_own_file_and_line() {
        let text = "// a comment\n//!include lib/reduce.wgsl\nfn broken() -> f32 { return 1u; }\n";
        match Source::compose("adam", text).unwrap().module().unwrap_err() {
            Error::Shader { file, line, .. } => assert_eq!((file.as_str(), line), ("adam.wgsl", 3)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_unknown_include_is_an_error() {
        let error = Source::compose("adam", "//!include lib/nothing.wgsl\n").err().unwrap();
        assert!(error.to_string().contains("adam.wgsl:1"), "{error}");
    }
}
