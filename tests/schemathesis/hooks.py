"""What a schema cannot say: which requests that fit it are refused, and rightly."""

import schemathesis

# A request may fit each parameter's schema and still ask for what there is not; then the problem says so.
RIGHTLY = {
    # The range and the step together: too many points, or counts that are no longer kept.
    "/problems/too-many-points",
    "/problems/resolution-gone",
    "/problems/records-gone",
    # Names of what there is not.
    "/problems/unknown-letter",
    "/problems/unknown-event",
    # The same key with another body.
    "/problems/idempotency-key-reused",
}


def start_after_end(problem):
    return problem.get("parameter") in ("start", "end") and "is not before" in problem.get("detail", "")


def too_many_bytes(problem):
    # A schema counts characters; ids, titles and names are limited in bytes.
    return problem.get("type") in ("/problems/bad-parameter", "/problems/bad-body") and " bytes; " in problem.get("detail", "")


def one_of_several_ways(problem):
    # A list is of a window, or of a day, or from start to end.
    detail = problem.get("detail", "")
    return "give one of window, day, or start and end" in detail or "give both, or a window or a day" in detail


def not_yet(problem):
    # A report is of a day that has begun.
    return problem.get("parameter") in ("day", "date") and "has not begun" in problem.get("detail", "")


def whole_number_with_a_point(problem):
    # JSON Schema takes 1.0 for an integer. Here whole numbers are written without a point, as every JSON writer does.
    details = [problem.get("detail", "")] + [rejected.get("detail", "") for rejected in problem.get("rejected", [])]
    return any("floating point" in detail or "is a whole number of" in detail for detail in details)


def beyond_the_log(problem):
    # How many sources the log has, and where they end.
    return problem.get("parameter") in ("source", "from") and any(
        words in problem.get("detail", "") for words in ("there is no source", "is beyond")
    )


def out_of_years(problem):
    # RFC 3339 goes to the year 9999; counts do to 5999.
    return problem.get("parameter") in ("start", "end", "date", "day") and "years 1 to 5999" in problem.get("detail", "")


def nothing_before(problem):
    # What a range is compared with would begin before the year 1.
    return problem.get("parameter") == "compare" and "before the year 1" in problem.get("detail", "")


def named_twice(problem):
    # Of many videos each is given once.
    return problem.get("member", "").startswith("videos[") and "give it once" in problem.get("detail", "")


def id_of_an_entity(problem):
    # Videos and spaces have an id of their own, and the site has not.
    detail = problem.get("detail", "")
    return problem.get("member", "").endswith("].id") and ("the site has no id but" in detail or "it is missing" in detail)


def key_that_cannot_be(problem):
    # A public key only sends events, no key expires before it begins, and browsers leave default ports out.
    detail = problem.get("detail", "")
    return problem.get("member") in ("scopes", "origins", "expires_at") and any(
        words in detail for words in ("its only scope is write", "expires at or before now", "that browsers do not write", "is no time such as")
    )


def names_or_a_filter(problem):
    # Letters are named or chosen by a filter, a reason belongs to one stage, and one letter is mended at a time.
    detail = problem.get("detail", "")
    return (
        "give names or a filter, not both" in detail
        or "no letter is refused as" in detail
        or "it mends one letter" in detail
    )


def names_of_letters(problem):
    # Names and cursors are texts of a form of their own.
    detail = problem.get("detail", "")
    return "a dead letter is named source/offset/index" in detail or "it is the cursor of an answer before" in detail


def change_of_two_kinds(problem):
    # A change adds to one minute or removes from a range, not both; ranges of one video lie apart; what is published has a name.
    member, detail = problem.get("member", ""), problem.get("detail", "")
    of_a_change = member.startswith("changes[") and any(
        words in detail
        for words in (
            "it goes with start and end, not with",
            "it is not after start",
            'a range goes with "remove"',
            "it is missing; give minute and gross",
            "nothing is to be changed",
            "outside the years",
            "years 1 to 5999",
            "bytes",
        )
    )
    of_all = member == "changes" and "overlap" in detail
    of_names = member in ("id", "reason") and any(
        words in detail for words in ("it is missing; give a name", "and the header Idempotency-Key differ", "does not begin with undo:", "say why")
    )
    return of_a_change or of_all or of_names


CANNOT_BE_SAID = (
    change_of_two_kinds,
    key_that_cannot_be,
    names_or_a_filter,
    names_of_letters,
    start_after_end,
    too_many_bytes,
    one_of_several_ways,
    not_yet,
    whole_number_with_a_point,
    beyond_the_log,
    out_of_years,
    nothing_before,
    named_twice,
    id_of_an_entity,
)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    try:
        problem = response.json()
    except ValueError:
        return True
    if not isinstance(problem, dict):
        return True
    rightly = problem.get("type") in RIGHTLY or any(
        check(problem) for check in CANNOT_BE_SAID
    )
    return not rightly
