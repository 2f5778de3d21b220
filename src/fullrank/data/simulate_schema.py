"""What the simulated log's columns mean, by its config."""

from __future__ import annotations

from fullrank.data.simulate_config import SimulatorConfig
from fullrank.schema import EventFeature, EventOutcome, Feature, History, Roles, Schema, Task


def simulator_schema(config: SimulatorConfig) -> Schema:
    """Two tasks, of which the second is late (and, in a funnel, needs a click); histories of what was clicked and of
    what was shown. Scenario, vectors and the price paid are there where the config has them, the truth (`p_…`) never.
    """
    window = config.attribution_window
    slot = EventFeature(name="slot", column="position")
    conversion = EventOutcome(name="conversion", time="conversion_time", window=window)
    features = [
        Feature(name="segment", kind="categorical", of="user"),
        Feature(name="age", kind="numeric", of="user"),
        Feature(name="interests", kind="multi", of="user", key_space="category", weights="interest_weights"),
        Feature(name="hour", kind="categorical", of="context"),
        Feature(name="device", kind="categorical", of="context"),
        Feature(name="campaign", kind="categorical", of="item"),
        Feature(name="advertiser", kind="categorical", of="item"),
        Feature(name="category", kind="categorical", of="item"),
        Feature(name="format", kind="categorical", of="item"),
        Feature(name="price", kind="numeric", of="item", scale="log"),
        Feature(name="match", kind="numeric", of="pair"),
        Feature(name="slot", kind="categorical", of="pair", column="position"),
    ]
    if config.scenarios > 1:
        features.append(Feature(name="scenario", kind="categorical", of="context"))
    if config.vector_dim:
        features.append(Feature(name="vector", kind="vector", of="item", dim=config.vector_dim))
    return Schema(
        name="simulated",
        roles=Roles(
            user="user",
            item="ad",
            request="request",
            impression="impression",
            time="time",
            position="position",
            scenario="scenario" if config.scenarios > 1 else "",
            campaign="campaign",
            advertiser="advertiser",
            propensity="propensity",
            exploration="explored",
            bid="bid",
            price="paid" if config.auction.bidders else "",
        ),
        time_unit="s",
        time_sorted=config.sorted_by_time,
        features=tuple(features),
        histories=(
            History(name="clicked", where="click", max_length=50, features=(slot,)),
            History(name="shown", max_length=100, features=(slot,), outcomes=(conversion,)),
        ),
        tasks=(
            Task(name="click"),
            Task(
                name="conversion",
                parent="click" if config.funnel else "",
                label_time="conversion_time",
                window=window,
            ),
        ),
    )
