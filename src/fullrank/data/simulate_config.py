"""What the simulated world is made of: its sizes, and how strongly each planted effect acts on each task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Effects:
    """How strongly each effect acts on the logit of one task; 0: it is absent, and nothing else changes.

    A strength is the standard deviation of the effect's contribution to the logit where users, ads and contexts are
    drawn uniformly; of the last four, what it says. Interactions are centred: with fields drawn uniformly,
    none of them has a part that fewer fields could express.

    Args:
        additive: main effects of user, ad, device and format, and (on click) of age, hour and log price, linear.
        match: per unit of `match`, the summed weight of the user's interests in the ad's category.
        fm: inner products of latent vectors: segment × category (it turns by `drift` a day, and has a part of its own
            in every scenario), and device × format.
        item_taste: segment × a latent vector of the ad itself, of which the feature `vector` is a noisy map.
        three_way: a product of three fields' latents, segment × category × device: no pair of them tells anything.
        gated: the device says which pair counts: segment × category, segment × format or category × format.
        time_of_day: √2 cos(2π (hour - phase of the category) / 24).
        sequence: the recency-weighted mean, over the user's past clicks, of the affinity (standard deviation 1)
            between the clicked category and the ad's; a click weighs 0.7 of the next one.
        last_event: the affinity (standard deviation 1) between the ad's category and that of the user's last click
            on the ad's format. No mean over events tells which was last.
        repeated_exposure: minus n / (n + 4), n: how often the user was shown the category before.
        position: not on the logit: slot s is looked at with P(look) = 1 / (1 + position · s); P = P(look) σ(logit).
    """

    additive: float = 0.0
    match: float = 0.0
    fm: float = 0.0
    item_taste: float = 0.0
    three_way: float = 0.0
    gated: float = 0.0
    time_of_day: float = 0.0
    sequence: float = 0.0
    last_event: float = 0.0
    repeated_exposure: float = 0.0
    position: float = 0.0

    def __post_init__(self) -> None:
        for name, strength in asdict(self).items():
            if not 0.0 <= strength < float("inf"):
                raise ValueError(f"Expected effect {name} >= 0 (0: absent), got {strength}.")


PAST = ("sequence", "last_event", "repeated_exposure")  # effects of what the user saw and clicked before


@dataclass(frozen=True, kw_only=True)
class Auction:
    """How the shown ad is chosen out of several that bid for the slot; without bidders a fixed policy chooses.

    `bidders` ads of the slot's class, drawn at random, offer bid × p̂; p̂ is the true click probability of the effects
    that need no past, with normal noise of `estimate_noise` on its logit: the platform's imperfect model. The highest
    offer wins and pays per click what it needed to win, (the second highest offer) / p̂: at most its bid. A slot that
    explores (`explore`) shows any of the bidders, free of charge.

    `budget` (0: none): what a campaign may spend a day on average over campaigns (log-normal, σ = 0.5). Spending is
    settled every `settle_requests` requests: a campaign whose settled spending has reached its budget bids no more
    that day, so that it overspends by what it spends between two settlements at most. Nothing paces it. Where none
    of the bidders may bid, the slot explores.
    """

    bidders: int = 0
    estimate_noise: float = 0.5
    budget: float = 0.0
    settle_requests: int = 1024

    def __post_init__(self) -> None:
        if self.bidders < 0 or self.bidders == 1:
            raise ValueError(f"Expected 2 or more bidders, or 0 for no auction, got {self.bidders}.")
        if self.settle_requests < 1:
            raise ValueError(f"Expected settle_requests >= 1, got {self.settle_requests}.")
        if self.estimate_noise < 0 or self.budget < 0:
            raise ValueError(
                f"Expected estimate_noise and budget >= 0, got {self.estimate_noise} and {self.budget}."
            )
        if self.budget and not self.bidders:
            raise ValueError(f"Expected bidders where campaigns have budgets ({self.budget}), got no auction.")


_CLICK = Effects(
    additive=0.6, match=0.8, fm=0.9, item_taste=0.3, time_of_day=0.2, sequence=0.5, repeated_exposure=0.3, position=0.35
)
_CONVERSION = Effects(additive=0.4, fm=0.6, item_taste=0.2)


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """How large and how restless the world is, and what is planted in it.

    `users` and `ads` are there on day 0; `new_keys_per_day` of each (a share of day 0's) join every day after.
    `drift`: radians a day by which taste turns. `explore`: the share of slots that are filled at random.
    Conversions come `mean_delay` s after their click on average, exponentially, and never after
    `attribution_window` s. `sorted_by_time = False` shuffles the rows' requests (within a day for `day(k)`).

    `click` and `conversion` are the planted effects of the two tasks, beside a constant (`click_logit`,
    `conversion_logit`). With `funnel` a conversion needs a click and `conversion` acts on P(conversion | click);
    without it both are drawn on their own. `task_conflict` turns all that is static in the second task's taste:
    cos(π · task_conflict) is the correlation of each effect's contributions to the two tasks (additive ones: about),
    so 0: the same taste, 0.5: unrelated, 1: opposite.

    `scenarios` > 1 adds domains: base rates with a standard deviation of 0.5 and `scenario_own`, the share of the
    variance of segment × category that is the domain's own. `vector_dim` > 0 adds the feature `vector` of the ad:
    a random linear map of its latent taste with normal noise of `vector_noise` (the signal has variance 1).
    """

    rows: int = 1_000_000
    users: int = 50_000
    ads: int = 5_000
    campaigns: int = 500
    categories: int = 20
    days: int = 10
    slots: int = 4
    seed: int = 0
    new_keys_per_day: float = 0.03
    drift: float = 0.1
    explore: float = 0.1
    mean_delay: int = 12 * 3600
    attribution_window: int = 3 * DAY
    sorted_by_time: bool = True
    click: Effects = _CLICK
    conversion: Effects = _CONVERSION
    click_logit: float = -2.4
    conversion_logit: float = -1.5
    funnel: bool = True
    task_conflict: float = 0.5
    scenarios: int = 1
    scenario_own: float = 0.3
    vector_dim: int = 0
    vector_noise: float = 0.5
    auction: Auction = field(default_factory=Auction)

    def __post_init__(self) -> None:
        counts = ("rows", "users", "campaigns", "categories", "days", "slots", "mean_delay", "attribution_window")
        for name in (*counts, "scenarios"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        if self.campaigns % self.categories:
            raise ValueError(
                f"Expected campaigns to be a multiple of categories ({self.categories}), got {self.campaigns}."
            )
        each = max(self.categories, self.auction.bidders)
        if self.ads < self.slots * each:
            what = "categories" if each == self.categories else "bidders"
            raise ValueError(f"Expected ads >= slots x {what} = {self.slots * each}, got {self.ads}.")
        for name in ("explore", "task_conflict", "scenario_own"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"Expected {name} in [0, 1], got {getattr(self, name)}.")
        for name in ("new_keys_per_day", "vector_dim", "vector_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"Expected {name} >= 0, got {getattr(self, name)}.")

    def remembers(self) -> bool:
        """Whether a row depends on rows before it: effects of the user's past, or budgets."""
        past = any(getattr(effects, name) for effects in (self.click, self.conversion) for name in PAST)
        return past or self.auction.budget > 0
