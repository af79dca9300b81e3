"""What a user can cause, and how it is told: one sentence on stderr, exit status 2, no traceback.

Each message names the file, the field, the value and the way out.
Mistakes of our own are assertions and keep their tracebacks.
"""

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Something that a user can cause and mend; its text is one sentence."""


class ConfigError(UserError):
    """A configuration that cannot be: an unknown name, a field out of range, sizes that do not fit each other."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class ImageError(UserError):
    """An image that is missing, cannot be decoded, or has the wrong shape."""


class NetworkError(UserError):
    """A quantized network that cannot be read, or does not match its description."""


class BuildError(UserError):
    """A build step that failed, or a tool that it needs and that is not there."""


def exit_on_user_error(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status; a user's error becomes one line on stderr and status 2.

    An interrupt from the keyboard exits with 130, silently, as shells expect.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status)
