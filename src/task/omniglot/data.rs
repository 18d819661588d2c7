//! Omniglot (Lake, Salakhutdinov & Tenenbaum 2015) as its authors give it: zip files, or the folders that
//! they hold, `ALPHABET/characterNN/NAME.png`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// Pixels along a side of a drawing.
const DRAWN: usize = 105;
/// Bytes of a drawing's file at most; the largest published one has 455.
const LARGEST: u64 = 1 << 16;
/// Bytes of all files at most; Omniglot's have some 10 MB.
const MOST: usize = 1 << 28;
/// Where the data are to be had.
const WANTED: &str = "Omniglot's zip files or the folders in them \
                      (github.com/brendenlake/omniglot, python/): ALPHABET/characterNN/NAME.png";

/// A character.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// Its alphabet and its own name.
    pub(super) name: String,
    /// Its drawings `[side, side]`, paper 1 and ink 0.
    pub(super) drawings: Vec<Vec<f32>>,
}

/// Reads every character in a zip file, a folder of zip files, or folders; drawings of `side` pixels. A
/// character that is in several files counts once. Also the SHA-256 of the drawings' files with their
/// names.
pub(super) fn read(path: &Path, side: usize) -> Result<(Vec<Class>, String)> {
    let mut found: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    collect(path, &mut |inner, bytes| {
        let names: Vec<&str> =
            inner.components().filter_map(|part| part.as_os_str().to_str()).collect();
        // what macOS adds to a zip file, and the published runs, whose drawings are no class
        let other = ["__MACOSX", "training", "test"];
        let other = names.iter().any(|name| name.starts_with('.') || other.contains(name));
        if let (false, [.., alphabet, character, drawing]) = (other, &names[..]) {
            let class = format!("{alphabet}/{character}");
            found.entry(class).or_default().insert((*drawing).into(), bytes);
        }
        Ok(())
    })?;
    if found.is_empty() {
        return Err(Error::file(path, "no drawings", WANTED));
    }
    let mut hashed: Vec<&[u8]> = Vec::new();
    for (class, drawings) in &found {
        for (name, bytes) in drawings {
            hashed.extend([class.as_bytes(), name.as_bytes(), &bytes[..]]);
        }
    }
    let sha256 = files::sha256(hashed);
    let mut classes = Vec::with_capacity(found.len());
    for (name, drawings) in found {
        let each = drawings
            .iter()
            .map(|(drawing, bytes)| decode(&path.join(&name).join(drawing), bytes, side));
        let drawings = each.collect::<Result<_>>()?;
        classes.push(Class { name, drawings });
    }
    Ok((classes, sha256))
}

/// Calls `take` with the bytes of every PNG file in a zip file, or in a folder and the zip files in it,
/// and its path inside.
pub(super) fn collect(
    path: &Path,
    take: &mut dyn FnMut(&Path, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut bytes = 0;
    visit(path, path, &mut |inner, file| {
        bytes += file.len();
        if bytes > MOST {
            let found = format!("drawings of more than {MOST} bytes");
            return Err(Error::file(path, found, WANTED));
        }
        take(inner, file)
    })
}

fn visit(
    root: &Path,
    path: &Path,
    take: &mut dyn FnMut(&Path, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let io = |source| Error::io(path, "read", source);
    let has_end = |path: &Path, end: &str| {
        path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end))
    };
    if !path.is_dir() {
        return from_zip(path, take);
    }
    let mut inside: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        inside.push(entry.map_err(io)?.path());
    }
    inside.sort();
    for entry in inside {
        if entry.is_dir() {
            visit(root, &entry, take)?;
        } else if has_end(&entry, "png") {
            take(entry.strip_prefix(root).unwrap_or(&entry), files::read(&entry)?)?;
        } else if has_end(&entry, "zip") {
            from_zip(&entry, take)?;
        }
    }
    Ok(())
}

fn from_zip(path: &Path, take: &mut dyn FnMut(&Path, Vec<u8>) -> Result<()>) -> Result<()> {
    let broken = |e: zip::result::ZipError| Error::file(path, e.to_string(), WANTED);
    let bytes = files::read(path)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    for k in 0..archive.len() {
        let mut file = archive.by_index(k).map_err(broken)?;
        let name = PathBuf::from(&*file.name().map_err(broken)?);
        let leaves =
            |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
        if name.components().any(leaves) {
            let found = format!("an entry that leaves it, {}", name.display());
            return Err(Error::file(path, found, WANTED));
        }
        if file.is_dir() || !name.extension().is_some_and(|end| end.eq_ignore_ascii_case("png")) {
            continue;
        }
        let mut bytes = Vec::new();
        let read = (&mut file).take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::file(path, format!("{}: {e}", name.display()), WANTED))?;
        if bytes.len() as u64 > LARGEST {
            let found = format!("{}, of more than {LARGEST} bytes", name.display());
            return Err(Error::file(path, found, WANTED));
        }
        take(&name, bytes)?;
    }
    Ok(())
}

/// Of each run of the published one-shot runs: the test drawings and the training drawings of their
/// characters, by name.
pub(super) fn labels(path: &Path) -> Result<BTreeMap<String, Vec<(String, String)>>> {
    const FILE: &str = "class_labels.txt";
    let wanted = "runNN/class_labels.txt";
    let mut texts: Vec<(String, String)> = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))? {
            let run = entry.map_err(|e| Error::io(path, "read", e))?.path();
            if run.join(FILE).is_file() {
                let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
                texts.push((name, String::from_utf8_lossy(&files::read(&run.join(FILE))?).into()));
            }
        }
    } else {
        let broken = |e: String| Error::file(path, e, wanted);
        let mut archive = zip::ZipArchive::new(Cursor::new(files::read(path)?))
            .map_err(|e| broken(e.to_string()))?;
        for k in 0..archive.len() {
            let file = archive.by_index(k).map_err(|e| broken(e.to_string()))?;
            let name = file.name().map_err(|e| broken(e.to_string()))?.into_owned();
            let parts: Vec<&str> = name.split('/').collect();
            if let [.., run, FILE] = parts[..] {
                let mut text = String::new();
                let read = file.take(LARGEST).read_to_string(&mut text);
                read.map_err(|e| broken(format!("{name}: {e}")))?;
                texts.push((run.into(), text));
            }
        }
    }
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_string();
    let pair = |line: &str| line.split_once(' ').map(|(item, class)| (last(item), last(class)));
    let of_run = |text: &str| text.lines().filter_map(|line| pair(line.trim())).collect();
    Ok(texts.iter().map(|(run, text)| (run.clone(), of_run(text))).collect())
}

/// A drawing of `side` pixels, each the mean of what it covers.
pub(super) fn decode(path: &Path, bytes: &[u8], side: usize) -> Result<Vec<f32>> {
    let broken = |e: png::DecodingError| Error::file(path, e.to_string(), "a PNG drawing");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    if info.width as usize != DRAWN || info.height as usize != DRAWN {
        let found = format!("{} x {} pixels", info.width, info.height);
        return Err(Error::file(path, found, format!("{DRAWN} x {DRAWN}, as Omniglot has them")));
    }
    let mut data = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut data).map_err(broken)?;
    let channels = info.color_type.samples();
    let paper: Vec<f64> =
        data.chunks_exact(channels).map(|pixel| f64::from(pixel[0]) / 255.0).collect();
    Ok(smaller(&paper, DRAWN, side))
}

/// A picture of `from` pixels along a side as one of `to`, each pixel the mean of the area that it covers.
fn smaller(picture: &[f64], from: usize, to: usize) -> Vec<f32> {
    use crate::numbers::{index, single};
    let ratio = f64::from(index(from)) / f64::from(index(to));
    // for each pixel along a side, those that it covers and how much of each
    let covered: Vec<Vec<(usize, f64)>> = (0..to)
        .map(|k| {
            let (low, high) = (f64::from(index(k)) * ratio, f64::from(index(k + 1)) * ratio);
            let share = |pixel: usize| {
                let at = f64::from(index(pixel));
                (high.min(at + 1.0) - low.max(at)).max(0.0) / ratio
            };
            (0..from).map(|pixel| (pixel, share(pixel))).filter(|(_, share)| *share > 0.0).collect()
        })
        .collect();
    let pixel = |y: usize, x: usize| {
        let row = |y: usize| covered[x].iter().map(|(x, s)| s * picture[y * from + x]).sum::<f64>();
        single(covered[y].iter().map(|(y, share)| share * row(*y)).sum())
    };
    (0..to * to).map(|k| pixel(k / to, k % to)).collect()
}

/// A square picture turned by quarters, counter-clockwise.
pub(super) fn turned(picture: &[f32], side: usize, quarters: u32) -> Vec<f32> {
    let mut turned = picture.to_vec();
    for _ in 0..quarters % 4 {
        let before = turned.clone();
        for (k, pixel) in turned.iter_mut().enumerate() {
            let (y, x) = (k / side, k % side);
            *pixel = before[x * side + side - 1 - y];
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_picture_keeps_the_mean_and_a_turned_one_its_shape() {
        let picture: Vec<f64> = (0..49).map(|k| f64::from(k % 7) / 6.0).collect();
        let small = smaller(&picture, 7, 3);
        let mean = small.iter().sum::<f32>() / 9.0;
        assert!((mean - 0.5).abs() < 1e-6, "{mean}");
        // columns 0, 1 and a third of 2: (0 + 1 + 2 / 3) / 7 * 3 / 6
        assert!((small[0] - (1.0 + 2.0 / 3.0) / 14.0).abs() < 1e-6, "{}", small[0]);
        // left to right becomes bottom to top
        assert_eq!(turned(&[1.0, 2.0, 3.0, 4.0], 2, 1), [2.0, 4.0, 1.0, 3.0]);
        assert_eq!(turned(&[1.0, 2.0, 3.0, 4.0], 2, 4), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn data_of_another_kind_are_refused_with_where_to_get_them() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| read(path, 31).unwrap_err().to_string();
        assert!(said(folder.path()).contains("brendenlake/omniglot"));
        let text = folder.path().join("text.zip");
        std::fs::write(&text, "no archive").unwrap();
        assert!(said(&text).contains("brendenlake/omniglot"));
        assert!(said(&folder.path().join("nothing")).contains("nothing"));
        std::fs::remove_file(&text).unwrap();
        let class = folder.path().join("A/character01");
        std::fs::create_dir_all(&class).unwrap();
        let png = crate::report::png(7, &[0; 3 * 35]);
        std::fs::write(class.join("1.png"), png).unwrap();
        assert!(said(folder.path()).contains("7 x 5 pixels"), "{}", said(folder.path()));
        std::fs::write(class.join("1.png"), "no picture").unwrap();
        assert!(said(folder.path()).contains("1.png"));
        // an archive whose entry leaves it
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&text).unwrap());
        archive.start_file("../out.png", zip::write::SimpleFileOptions::default()).unwrap();
        archive.finish().unwrap();
        assert!(said(&text).contains("leaves it"), "{}", said(&text));
    }
}
