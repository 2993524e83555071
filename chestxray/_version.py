"""The version, and what every page and answer says."""

VERSION = "0.1.0"
RESEARCH_ONLY = "Research use only. Not a medical device; not for diagnosis."
