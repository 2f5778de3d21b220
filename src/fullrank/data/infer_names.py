"""What the names of columns say: the words that logs are commonly written with. Guesses, all of them our choice."""

from __future__ import annotations

import re

from fullrank.data.infer_sample import Column

_USERS = ("user", "member", "customer", "viewer", "visitor", "reviewer", "account", "profile", "player", "reader")
_ITEMS = (
    *("ad", "item", "creative", "adgroup", "product", "movie", "video", "photo", "article", "news", "song", "track"),
    *("book", "doc", "document", "content", "post", "listing", "goods", "target", "app"),
)


def _with_id(nouns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for noun in nouns for name in (f"{noun}id", noun))


# Earlier names win. Compared without case and separators: `userid` stands for userId, user_id and USER-ID.
ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("uid", *_with_id(_USERS), "cookieid", "cookie", "deviceid", "guid", "sessionid", "ip"),
    "item": (*_with_id(_ITEMS), "iid", "tid", "sku", "asin", "parentasin", "isbn"),
    "request": (
        *("requestid", "reqid", "request", "searchid", "queryid", "auctionid", "displayid", "pageviewid"),
        *("slateid", "listid", "traceid", "serveid"),
    ),
    "impression": ("impressionid", "impid", "impression", "exposureid", "eventid", "rowid", "logid", "bidid", "id"),
    "time": (
        *("timestamp", "time", "ts", "eventtime", "eventtimestamp", "impressiontime", "impressiontimestamp"),
        *("requesttime", "requesttimestamp", "servetime", "showtime", "viewtime", "exposuretime", "logtime"),
        *("servertime", "bidtime", "datetime", "timestampms", "timems", "createdat", "unixreviewtime"),
        *("clicktime", "clicktimestamp", "date", "dt", "day", "hour"),
    ),
    "order": ("order", "sequence", "seq", "seqno", "seqid", "step", "eventindex", "eventnumber", "roworder"),
    "position": ("position", "pos", "slotposition", "adposition", "itemposition", "displayposition", "bannerpos"),
    "scenario": ("scenario", "scenarioid", "scene", "sceneid", "surface", "placement", "domainid", "domain", "tab"),
    "campaign": ("campaignid", "campaign", "campid", "cmpid"),
    "advertiser": ("advertiserid", "advertiser", "adverid", "advid"),
    "propensity": ("propensity", "propensityscore", "pscore", "loggingprob", "actionprob", "displayprob"),
    "exploration": (
        *("exploration", "isexploration", "explore", "isexplore", "explored", "israndom", "random", "randomflag"),
    ),
    "sample_rate": ("samplerate", "samplingrate", "keeprate", "downsamplerate", "negativesamplerate"),
    "weight": ("weight", "sampleweight", "rowweight", "instanceweight"),
    "bid": ("bid", "bidprice", "bidamount", "bidcpm", "maxbid"),
    "price": (
        *("pricepaid", "paidprice", "payprice", "payingprice", "winprice", "winningprice", "clearingprice"),
        *("price", "cost"),
    ),
}

_NOISE = {"hash", "hashed", "anon", "encoded", "enc", "raw", "key", "str", "int", "masked"}
_LABEL_AFFIXES = {"is", "has", "did", "was", "label", "labels", "target", "flag", "y", "outcome", "task"}
_CLICKS = {"click", "clicks", "clicked", "clk"}
_BINARY_EVENTS = _CLICKS | {
    *("conversion", "conversions", "converted", "convert", "conv", "cvr", "purchase", "purchased", "buy", "bought"),
    *("pay", "paid", "ordered", "install", "installed", "like", "liked", "dislike", "hate", "follow", "followed"),
    *("share", "shared", "comment", "commented", "favorite", "favourite", "cart", "addtocart", "atc", "attributed"),
    *("download", "downloaded", "register", "registered", "signup", "subscribe", "subscribed", "finish", "finished"),
    *("completed", "watched", "longview", "longplay", "forward", "forwarded", "collect", "engaged", "positive"),
}
_GRADED_EVENTS = {
    *("rating", "ratings", "stars", "overall", "watchtime", "playtime", "dwelltime", "staytime", "readtime"),
    *("watchratio", "playduration", "watchduration", "playtimems", "watchtimems", "ltv", "revenue", "gmv"),
}
_ACTIONS = {"eventtype", "action", "actiontype", "behavior", "behaviour", "behaviortype", "behaviourtype", "event"}

USER_WORDS = {"user", "u", "member", "customer", "viewer", "visitor", "profile", "gender", "sex", "age", "occupation"}
ITEM_WORDS = {
    *("item", "i", "ad", "creative", "product", "movie", "video", "article", "news", "song", "track", "book"),
    *("campaign", "advertiser", "brand", "title", "genre", "genres", "author", "seller", "shop", "goods", "app"),
}
HISTORY_WORDS = {"hist", "history", "seq", "sequence", "past", "recent", "behavior", "behaviour", "previous", "prev"}
CODE_WORDS = {
    *("id", "ids", "code", "type", "category", "categories", "cat", "cate", "class", "brand", "genre", "genres"),
    *("city", "country", "region", "state", "province", "zip", "os", "device", "model", "version", "gender", "sex"),
    *("occupation", "job", "lang", "language", "tag", "tags", "group", "segment", "channel", "network", "format"),
    *("weekday", "hour", "dow", "slot", "level", "bucket", "size", "carrier", "isp", "browser", "site", "domain"),
}
AMOUNT_WORDS = {
    *("count", "cnt", "num", "number", "n", "amount", "price", "cost", "duration", "length", "score", "rate", "ratio"),
    *("ctr", "cvr", "avg", "mean", "sum", "total", "age", "year", "days", "hours", "minutes", "seconds", "distance"),
    *("views", "likes", "clicks", "rank", "percent", "pct", "budget", "quality", "freq", "frequency"),
    *("height", "width"),
}
TEXT_WORDS = {"title", "name", "description", "text", "summary", "headline", "body", "abstract", "caption", "url"}
WEIGHT_WORDS = {"weight", "weights", "score", "scores", "w"}


def squashed(column: Column) -> str:
    return "".join(word for word in column.words if word not in _NOISE)


def role_rank(role: str, column: Column) -> int | None:
    """How early the column's name stands among those of `role`; None if it does not."""
    names = ROLE_NAMES[role]
    name = squashed(column)
    return names.index(name) if name in names else None


def _event(column: Column) -> str:
    return "".join(word for word in column.words if word not in _LABEL_AFFIXES)


def is_label_name(column: Column) -> bool:
    """Named for what came of the row (`click`, `is_click`, `label`, `rating`): never an input of the same row."""
    event = _event(column)
    if {"label", "labels"} & set(column.words):
        return not is_time_name(column)
    bare = not event or event.isdigit()  # target, y_2
    return (bare and bool(set(column.words) & {"target", "y", "outcome"})) or event in _BINARY_EVENTS | _GRADED_EVENTS


def is_graded_name(column: Column) -> bool:
    return _event(column) in _GRADED_EVENTS


def is_click_name(column: Column) -> bool:
    return _event(column) in _CLICKS


def is_action_name(column: Column) -> bool:
    """Named for what the user did in this row: like a label, known only afterwards."""
    return squashed(column) in _ACTIONS


def is_prediction_name(column: Column) -> bool:
    """Named for the probability of a label (`p_click`, `pctr`, `predicted_conversion`)."""
    event = "".join(column.words)
    named = re.fullmatch(r"(?:p|prob|probability|pred|predicted|prediction)(.+)", event)
    return named is not None and named.group(1) in _BINARY_EVENTS | {"ctr", "cvr"}


def is_time_name(column: Column) -> bool:
    return role_rank("time", column) is not None or bool(
        {"time", "timestamp", "ts", "date", "datetime", "at"} & set(column.words[-2:])
    )
