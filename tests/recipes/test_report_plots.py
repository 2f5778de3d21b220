"""The figures of a report on data of odd shapes."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np

from fullrank.recipes.report_plots import plot_days, plot_scores


def test_the_figures_read_at_any_number_of_days_and_any_spread_of_scores() -> None:
    days = np.arange(13) + 19_783
    profile = SimpleNamespace(day_D=days, rows_D=np.ones(13), mean_D={})
    figure, (rows, rates) = plt.subplots(1, 2)
    plot_days(profile, [], rows, rates)  # type: ignore[arg-type]  # what it reads of a profile
    ticks = rows.get_xticks()
    assert len(ticks) <= 7 and len(set(np.diff(ticks))) == 1 and not rates.axison
    narrow = SimpleNamespace(
        column=lambda task: 0,
        known_NK=np.ones((9, 1), bool),
        logits_NK=np.linspace(-0.35, -0.25, 9)[:, None],
        labels_NK=np.tile([0, 1, 0], 3)[:, None],
        sample_rate_N=np.ones(9),
    )
    labels = plot_scores(narrow, "click", figure.add_subplot()).get_xticklabels()  # type: ignore[arg-type]
    assert len({label.get_text() for label in labels}) == 5
    plt.close(figure)
