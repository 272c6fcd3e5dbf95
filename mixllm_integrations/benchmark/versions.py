"""What a figure was measured with."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_versions"]

_PACKAGES = ("mixllm-integrations", "numpy", "scikit-learn", "scipy")


def package_versions(others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on.

    Parameters
    ----------
    others
        Further packages; one that is not installed is ``"unknown"``.

    Examples
    --------
    >>> sorted(package_versions())[:2]
    ['mixllm-integrations', 'numpy']
    """
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
