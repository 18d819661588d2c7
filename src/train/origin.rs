//! Where and when a run was started.

/// A time, in seconds since 1970, as ISO 8601 has it, in UTC. The date by the algorithm of
/// Richards 2013 (*Explanatory supplement to the astronomical almanac*, section 15.11).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not before 1970")]
pub(super) fn date(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    // Julian day number
    let day = seconds / 86_400 + 2_440_588;
    let f = day + 1401 + (4 * day + 274_277) / 146_097 * 3 / 4 - 38;
    let e = 4 * f + 3;
    let h = 5 * (e % 1461 / 4) + 2;
    let (day, month) = (h % 153 / 5 + 1, (h / 153 + 2) % 12 + 1);
    let year = e / 1461 - 4716 + (14 - month) / 12;
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", seconds % 60)
}

/// The name of this machine; null where it has none.
pub(super) fn host() -> Option<String> {
    #[cfg(unix)]
    return Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").ok()
}

/// The processor's own name, where the system tells.
pub(super) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399.0), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400.0), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_796_083_200.5), "2026-12-01T00:00:00Z");
    }
}
