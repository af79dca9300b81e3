"""That the shared settings take hold."""

import os

import torch
from hypothesis import settings


def test_workers_share_the_cores():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert torch.get_num_threads() * workers <= max(os.cpu_count() or 1, workers)


def test_properties_have_no_deadline_and_are_the_same_in_ci():
    assert settings().deadline is None
    assert settings().derandomize == bool(os.environ.get("CI"))


def test_the_slow_profile_tries_more():
    assert settings.get_profile("slow").max_examples > settings.get_profile("default").max_examples
