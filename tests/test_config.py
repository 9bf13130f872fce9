"""Configuration: everything that is wrong is said at once, and everything derived from the table agrees with it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bundle import config
from bundle.config import BundleConfig, SiteConfig, parse_bundle, parse_site
from bundle.errors import ConfigError
from bundle.settings import (
    BUNDLE,
    SITE,
    Setting,
    default_domain,
    domain_problem,
    reference_page,
    sample,
)
