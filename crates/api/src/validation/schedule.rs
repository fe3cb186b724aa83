//! The form of a CronJob's schedule.

/// Names of months and days, from the first value of their field.
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Minute, hour, day of month, month, day of week: bounds and names.
const FIELDS: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

/// Why `schedule` is none; nothing when it is one.
pub fn problem(schedule: &str) -> Option<String> {
    let schedule = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest.trim()),
        None => schedule,
    };
    if schedule.is_empty() {
        return Some("empty spec string".into());
    }
    if schedule.starts_with('@') {
        let known = DESCRIPTORS.contains(&schedule) || schedule.starts_with("@every ");
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(FIELDS).find_map(|(text, bounds)| text.split(',').find_map(|part| part_problem(part, bounds)))
}

/// `*`, `n`, `a-b`, each with an optional `/step`.
fn part_problem(part: &str, (min, max, names): (u32, u32, &[&str])) -> Option<String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(index) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(min + index as u32);
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    if let Some(step) = step {
        match number(step) {
            Err(problem) => return Some(problem),
            Ok(0) => return Some(format!("step of range should be a positive number: {part}")),
            Ok(_) => {}
        }
    }
    if matches!(range, "*" | "?") {
        return None;
    }
    let (start, end) = range.split_once('-').unwrap_or((range, range));
    let (start, end) = match (number(start), number(end)) {
        (Ok(start), Ok(end)) => (start, end),
        (Err(problem), _) | (_, Err(problem)) => return Some(problem),
    };
    match () {
        () if start < min => Some(format!("beginning of range ({start}) below minimum ({min}): {part}")),
        () if end > max => Some(format!("end of range ({end}) above maximum ({max}): {part}")),
        () if start > end => Some(format!("beginning of range ({start}) beyond end of range ({end}): {part}")),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for fine in ["* * * * *", "*/5 1-3 1,15 jan-mar MON", "@daily", "TZ=UTC 0 0 * * *"] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        for (wrong, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(problem(wrong).as_deref(), Some(why), "{wrong}");
        }
    }
}
