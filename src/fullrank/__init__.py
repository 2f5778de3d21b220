"""fullrank: an open advertising recommender, from a platform's logs to ranked, priced ads."""

__version__ = "0.1.0"
