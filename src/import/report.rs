//! What an import says at its end, on stdout.

use super::batch::Unusable;
use super::send::Sent;
use super::standing::Standing;

/// The whole file is in.
pub(crate) fn complete(name: &str, sent: &Sent, resumed_after: u64, rate: u64, before: &Standing, after: Option<&Standing>) {
    println!("{name}: complete, {} rows", sent.last_row);
    if resumed_after > 0 {
        println!("(rows 1 to {resumed_after} were acknowledged in an earlier run; the figures below are of this one)");
    }
    lines("accepted", sent.accepted, &format!(" ({rate}/s)"));
    if sent.already > 0 {
        lines("already there", sent.already, " (in the log from before the interruption, not sent again)");
    }
    match after {
        Some(after) => verdicts(sent, before, after),
        None => println!("  The server has not counted all of it yet (60 s): see `tallymark status` for duplicates and rejections."),
    }
    unusable(&sent.unusable);
}

/// It was stopped before its end.
pub(crate) fn stopped(name: &str, sent: &Sent, without_barrier: bool, without_again: &str) {
    println!("{name}: stopped after row {}", sent.last_row);
    lines("accepted", sent.accepted, "");
    if without_barrier {
        println!("  The server did not answer at the end; what it took after that row is found when you go on.");
    }
    unusable(&sent.unusable);
    println!("Run the same command again{without_again} to go on; nothing will be counted twice.");
}

/// What would be sent.
pub(crate) fn dry_run(usable: u64, unusable: &Unusable) {
    lines("usable", usable, "");
    self::unusable(unusable);
}

/// What became of the accepted events, from the change of the server's own totals.
fn verdicts(sent: &Sent, before: &Standing, after: &Standing) {
    let folded = after.since(before);
    let foreign = folded.events() != sent.accepted;
    let note = if foreign { " (includes other traffic)" } else { "" };
    lines("counted", folded.counted, note);
    lines("duplicate", folded.duplicate, note);
    lines("rejected", folded.rejected.values().sum(), note);
    for (reason, n) in &folded.rejected {
        println!("    {reason:<14} {n}");
    }
    if folded.duplicate > 0 && !foreign {
        println!("  duplicate: events with these ids had come within the last minutes. Where ids are unique within one file only, import");
        println!("  with --map event_id=,... from the start (a new data directory: what was counted stays counted).");
    }
    if folded.rejected.contains_key("too_old") {
        println!("  too_old: older than max_lateness; if this is an import of old events, run it again with --historical --again.");
    }
    if foreign {
        let difference = folded.events().abs_diff(sent.accepted);
        println!(
            "  The server counted {} events meanwhile, {difference} more or fewer than this run sent: other traffic, or requests sent twice ({}).",
            folded.events(),
            sent.repeated
        );
    }
}

fn unusable(unusable: &Unusable) {
    lines("unusable rows", unusable.total(), "");
    for line in unusable.describe() {
        println!("  {line}");
    }
}

fn lines(name: &str, n: u64, note: &str) {
    println!("  {name:<16} {n}{note}");
}
