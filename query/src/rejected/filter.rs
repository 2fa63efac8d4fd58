//! Which letters are meant: by reason, stage, source and when they were refused.

use ingest::Problem;
use schemas::{DeadLetter, Millis, Reason, Source, Stage};

use crate::params::{Params, choice, parse_time};

/// The names of what a filter may say.
pub(super) const FILTER: [&str; 5] = ["reason", "stage", "source", "start", "end"];

/// Which letters are meant; everything that is not said is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    reason: Option<Reason>,
    stage: Option<Stage>,
    source: Option<Source>,
    /// Refused at or after.
    pub(super) start: Option<Millis>,
    /// Refused before.
    pub(super) end: Option<Millis>,
}

/// Sources have numbers of 31 bits.
fn source_of(name: &str, number: u64) -> Result<Source, Problem> {
    let known = i32::try_from(number).ok().and_then(|number| u32::try_from(number).ok());
    known
        .map(Source)
        .ok_or_else(|| Problem::bad_parameter(name, format!("there is no source {number}; they have numbers up to {}", i32::MAX)))
}

impl Filter {
    /// Reads it from parameters, wherever they were given.
    ///
    /// # Errors
    /// A 400 problem that names the parameter and what it may be.
    pub(super) fn read(given: &Params) -> Result<Self, Problem> {
        let [reason, stage, source, start, end] = FILTER;
        let reasons = Reason::ALL.map(|reason| (reason.as_str(), reason));
        let filter = Self {
            reason: given.get(reason).map(|text| choice(reason, text, &reasons)).transpose()?,
            stage: given.get(stage).map(|text| choice(stage, text, &Stage::ALL.map(|stage| (stage.as_str(), stage)))).transpose()?,
            source: given.number(source, 0)?.map(|number| source_of(source, number)).transpose()?,
            start: given.get(start).map(|text| parse_time(start, text)).transpose()?,
            end: given.get(end).map(|text| parse_time(end, text)).transpose()?,
        };
        if let (Some(reason), Some(stage)) = (filter.reason, filter.stage)
            && Stage::of(reason) != stage
        {
            let detail = format!(
                "no letter is refused as {reason} in the stage {}; that reason is one of {}",
                stage.as_str(),
                Stage::of(reason).as_str()
            );
            return Err(Problem::bad_parameter("stage", detail));
        }
        if let (Some(start), Some(end)) = (filter.start, filter.end)
            && start >= end
        {
            return Err(Problem::bad_parameter(
                "start",
                format!("start {start} is not before end {end}; start is inclusive and end exclusive"),
            ));
        }
        Ok(filter)
    }

    /// Whether a letter, refused at some time, is meant.
    pub(super) fn takes(&self, letter: &DeadLetter, at: Millis) -> bool {
        self.reason.is_none_or(|reason| letter.reason == reason)
            && self.stage.is_none_or(|stage| letter.stage == stage)
            && self.source.is_none_or(|source| letter.source == source)
            && self.start.is_none_or(|start| at >= start)
            && self.end.is_none_or(|end| at < end)
    }
}

#[cfg(test)]
mod tests {
    use schemas::Offset;
    use schemas::dead_letter::Original;

    use super::*;

    fn filter(query: &str) -> Result<Filter, Problem> {
        Filter::read(&Params::read(query, &FILTER)?)
    }

    #[test]
    fn each_part_narrows_and_times_are_half_open() {
        let letter = DeadLetter {
            source: Source(2),
            offset: Offset(1),
            index: 0,
            stage: Stage::Classify,
            reason: Reason::TooOld,
            detail: String::new(),
            historical: false,
            original: Original::of(b""),
            whole_bytes: None,
        };
        for (query, expected) in [
            ("", true),
            ("reason=too_old&stage=classify&source=2&start=60&end=61", true),
            ("reason=in_future", false),
            ("stage=decode", false),
            ("source=1", false),
            ("end=60", false),
            ("start=60.001", false),
        ] {
            assert_eq!(filter(query).unwrap().takes(&letter, Millis(60_000)), expected, "{query}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (query, words) in [
            ("reason=old", "too_old"),
            ("stage=parse", "decode, classify, correct"),
            ("source=-1", "whole number"),
            ("start=soon", "RFC 3339"),
            ("start=60&end=60", "is not before"),
            ("reason=too_old&stage=decode", "classify"),
        ] {
            assert!(filter(query).unwrap_err().body().contains(words), "{query}");
        }
    }
}
