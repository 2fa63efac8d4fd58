//! Every kind of problem that an HTTP answer can be: what its `type`, `/problems/{name}`, leads to.
//!
//! The kinds of one program are one table, so that a kind has one status, one title and one explanation wherever it comes from.

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of the `type`; it never changes.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The title; it does not depend on the request.
    pub title: &'static str,
    /// What has happened.
    pub means: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// The kind of a name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

const fn kind(name: &'static str, status: u16, title: &'static str, means: &'static str, remedy: &'static str) -> Kind {
    Kind { name, status, title, means, remedy }
}

/// All of them, by status and name.
#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    kind("bad-body", 400, "The body cannot be used",
        "The body is not what this operation takes: it cannot be parsed, a member is unknown or missing, or a value is not allowed.",
        "Read detail: it names the place and what may stand there. Send the corrected body; nothing of this one was taken."),
    kind("bad-parameter", 400, "A parameter cannot be used",
        "A parameter of the path or the query string has a value that it cannot have, or was given twice.",
        "The member parameter names it, and detail says which values it takes. Correct it and ask again."),
    kind("body-cut", 400, "The body ended early",
        "The connection failed, or the framing of the body broke, before the body was complete.",
        "Send the request again. Events that are sent twice are counted once."),
    kind("no-usable-event", 400, "No event can be used",
        "Each event of the request was refused, or there was none.",
        "The member rejected names each refused event with its index, the reason and what to do. Correct them and send them again."),
    kind("too-many-points", 400, "The answer would have too many points",
        "The range holds more points of this step than one answer may have; the member limit says how many that are.",
        "Ask with the step that the member step proposes, or for a shorter range."),
    kind("unknown-parameter", 400, "There is no such parameter",
        "The query string holds a parameter that this operation does not know. It is refused rather than ignored, because a mistyped name would otherwise be a wrong answer.",
        "Correct the name: detail proposes the nearest one and lists all that are known."),
    kind("key-needed", 401, "A key is needed",
        "The request shows no key, or one that there is not, or one that was revoked or has expired.",
        "Send a key as Authorization: Bearer tm_...; detail says what is wrong with this one. Whoever runs the server makes keys with tallymark keys create."),
    kind("origin-refused", 403, "The key is not for this page",
        "A browser sent the request from a page whose origin the key does not list. Origins are compared as browsers write them, whole.",
        "Use a key that lists the page: tallymark keys create NAME --public --scope write --origin https://... A secret key does not belong in a page."),
    kind("scope-lacking", 403, "The key does not allow this",
        "The key is good, but not for this: the member scope names the scope that it lacks.",
        "Use a key with that scope. A key's scopes never change; another one is made with tallymark keys create."),
    kind("not-found", 404, "There is nothing here",
        "No operation has this path.",
        "Compare the path with the reference at /docs. Paths have no slash at their end; a slash within an id is written %2F."),
    kind("unknown-adjustment", 404, "There is no such adjustment",
        "No adjustment has this id.",
        "GET /v1/adjustments lists all. The id is compared byte by byte; that of one which undoes another begins with undo:."),
    kind("unknown-event", 404, "There is no such event",
        "No event with this id was found in the part of the log that was looked through; detail says how far back that went.",
        "Check the id: it is compared byte by byte. Look further back with within, or name the video with video_id. An event that was never acknowledged was never taken."),
    kind("unknown-import", 404, "There is no such import",
        "No import of a file with this content was begun.",
        "Begin it with tallymark import, or check the hash."),
    kind("unknown-key", 404, "There is no such key",
        "No key has this id.",
        "GET /v1/keys lists all. The id of a key is its middle part: tm_ID_SECRET."),
    kind("unknown-letter", 404, "There is no such letter",
        "No refused event of this name was found; detail says where was looked.",
        "Take the name, and its place with at, from a list of refused events. An event that was not refused has no letter, and old letters are given up in time."),
    kind("unknown-problem", 404, "There is no such kind of problem",
        "No problem has this name.",
        "All kinds are listed at the end of /docs."),
    kind("unknown-space", 404, "There is no such space",
        "The space has neither views nor a name.",
        "Check the id: it is compared byte by byte. A space that was viewed for the first time appears within seconds."),
    kind("unknown-video", 404, "There is no such video",
        "The video has neither views nor metadata.",
        "Check the id: it is compared byte by byte. A video that was viewed for the first time appears within seconds."),
    kind("method-not-allowed", 405, "This method is not taken here",
        "The path exists, but not with this method.",
        "The Allow header lists the methods that it takes."),
    kind("not-acceptable", 406, "None of the accepted types can be had",
        "The Accept header of the request names only types that this operation does not answer with.",
        "Accept one of those that the member types lists, or say format=json, csv or arrow in the query string."),
    kind("body-too-slow", 408, "The body did not come in time",
        "The body of the request was not complete within the time that a body may take, or came more slowly than a body may.",
        "Send fewer events at once, or over a better connection."),
    kind("below-zero", 409, "A count would fall below zero",
        "More is to be taken away than is counted. The member lacking says where, how much is wanted and how much there is; nothing of the request was done.",
        "Take away less. If the space is what has too little, give the space that these views named, or null if they named none. Another adjustment may have been first: GET /v1/adjustments lists all."),
    kind("minute-open", 409, "A minute is still open",
        "Only minutes that all sources have closed can be adjusted: those before the member closed_through.",
        "Send the request again after as many seconds as Retry-After says, or leave the open minutes out."),
    kind("nothing-to-adjust", 409, "There is nothing to change",
        "Nothing is counted that could be taken away, or nothing was taken that could be undone.",
        "Check the video and the range. Minutes that are still open are not among what can be taken away."),
    kind("other-adjustment", 409, "The id belongs to another adjustment",
        "There is an adjustment with this id that asks for something else.",
        "Give each adjustment an id of its own, and send a request again with the very body of the first."),
    kind("request-in-progress", 409, "The first request is being worked on",
        "A request with this Idempotency-Key is being worked on, and its answer is not known yet.",
        "Send the request again after as many seconds as Retry-After says: it is given the answer of the first."),
    kind("source-ended", 409, "The counts cannot be changed any more",
        "The counts were moved here from another log, whose sources take no more records.",
        "Leave them out: end the range before, or begin it after them."),
    kind("too-many-keys", 409, "There are too many keys",
        "As many keys are kept as may be, revoked ones among them.",
        "Use one of those that there are. Keys are for programs and people, not for each of their users."),
    kind("unfinished-adjustment", 409, "The adjustment is still being done",
        "Some of its parts are neither taken nor refused yet, so what would have to be undone is not known.",
        "Ask for it until it has ended, then undo it. If it was interrupted, sending its request again goes on with it."),
    kind("records-gone", 410, "The records are no longer kept",
        "The log has dropped its records before the offset that the member start names.",
        "Begin at start, or leave from out."),
    kind("resolution-gone", 410, "This resolution is no longer kept so far back",
        "Counts by minute and by hour are kept for a limited time. The range, or one of its points, begins or ends where only coarser counts are left.",
        "Ask for a start at or after the member oldest, for a coarser step, or for whole UTC days, which are kept for ever."),
    kind("body-expands", 413, "The body decodes to far more than it is",
        "The compressed body decodes to more than as many times its size as the member limit_ratio says, which events never do.",
        "Send the events in other requests, or uncompressed."),
    kind("body-too-large", 413, "The body is too large",
        "The body, or what it decodes to if it is compressed, has more bytes than the member limit_bytes says.",
        "Send less at once."),
    kind("too-many-events", 413, "The request has too many events",
        "The request has more events than the member limit says. Nothing of it was taken.",
        "Send the events in smaller requests."),
    kind("target-too-long", 414, "The path and its query are too long",
        "The path with its query string has more bytes than the member limit_bytes says.",
        "Ask for less at once, or ask with POST /v1/query, which takes its question as a body."),
    kind("unsupported-media-type", 415, "The body has a form that is not taken",
        "The Content-Type or the Content-Encoding of the body is not one that this operation takes.",
        "Send one of the forms that detail lists, in UTF-8, uncompressed or in a coding that detail lists."),
    kind("idempotency-key-reused", 422, "The Idempotency-Key belongs to another request",
        "A request with this Idempotency-Key and another body, or another query, came within the last ten minutes.",
        "Send each request with a key of its own, best a new UUID, and a retry with the very bytes of the first."),
    kind("quota-exceeded", 429, "Too much at once",
        "This caller has sent more requests or events within a second than the member limit says, or its requests hold as much memory as the member limit_bytes says. Where a quota holds, the RateLimit-Policy and RateLimit headers of every answer tell it and what is left of it.",
        "Wait for as long as Retry-After says, then send fewer requests, or ask or send more in one. Nothing was taken of what was refused."),
    kind("headers-too-long", 431, "The headers are too long",
        "The names and values of the request's headers together have more bytes than the member limit_bytes says.",
        "Send fewer or shorter headers: cookies are not needed here."),
    kind("internal", 500, "The service failed",
        "The work on the request broke off. This is a bug.",
        "Ask again; if it happens again, report it with the request id and what the server's log says of it."),
    kind("log-damaged", 500, "The log is damaged",
        "Records of the log cannot be read as they were written.",
        "Its operator has to look at it: detail names the place. Counts that are stored are not affected."),
    kind("metrics", 500, "The metrics cannot be written",
        "The metrics could not be put into words. This is a bug.",
        "Report it."),
    kind("store-damaged", 500, "The store is damaged",
        "Rows of the store cannot be read as they were written, so no count is given rather than a wrong one.",
        "Its operator has to look at it: detail names the place. Counts can be made again from the log."),
    kind("log-failed", 503, "The log has failed",
        "The log cannot be used any more until the process is started again: its disk may be full or broken.",
        "Its operator has to mend the cause and start the process again."),
    kind("store-failed", 503, "The store has failed",
        "The store cannot be used any more until the process is started again: its disk may be full or broken, or it was made by other rules.",
        "Its operator has to mend the cause that detail names and start the process again."),
    kind("unavailable", 503, "The service cannot do this now",
        "The log or the store does not answer, or as many requests as may be are being worked on.",
        "Wait as many seconds as the Retry-After header says, then send the same request again. Sending events again is safe: they are counted once."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_order_of_status() {
        assert!(KINDS.windows(2).all(|pair| (pair[0].status, pair[0].name) < (pair[1].status, pair[1].name)));
        assert!(KINDS.iter().all(|kind| KINDS.iter().filter(|other| other.name == kind.name).count() == 1));
    }

    #[test]
    fn every_kind_says_what_it_means_and_what_to_do() {
        for kind in KINDS {
            assert!(kind.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", kind.name);
            assert!(kind.means.ends_with('.') && kind.remedy.ends_with('.') && !kind.title.ends_with('.'), "{}", kind.name);
        }
    }
}
