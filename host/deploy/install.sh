#!/bin/sh
# Installs this bundle for Jupyter on the board: sudo ./install.sh [folder]
# Without a folder: $PYNQ_JUPYTER_NOTEBOOKS, else /home/xilinx/jupyter_notebooks. Replaces an earlier one of this name.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
notebooks=${1:-${PYNQ_JUPYTER_NOTEBOOKS:-/home/xilinx/jupyter_notebooks}}
python=${PYTHON:-python3}

# PYNQ keeps its Python in an environment of its own, which sudo does not enter
if [ -r /etc/profile.d/pynq_venv.sh ]; then
    set +u
    . /etc/profile.d/pynq_venv.sh
    set -u
fi
if [ -r /etc/profile.d/xrt_setup.sh ]; then
    set +u
    . /etc/profile.d/xrt_setup.sh
    set -u
fi

if ! [ -d "$notebooks" ] || ! [ -w "$notebooks" ]; then
    echo "error: $notebooks: no such folder, or not writable; run this with sudo, or name the notebooks' folder" >&2
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "error: $python: Python 3.10 or later is needed; PYNQ 3.0 and later have it" >&2
    exit 2
fi
for package in numpy PIL pynq matplotlib; do
    if ! "$python" -W ignore -c "import $package"; then
        echo "error: $package: $python cannot import it; README.md says which PYNQ image to use" >&2
        exit 2
    fi
done
cd "$here"
"$python" -W ignore -c '
from host.bundle import load_bundle, load_network
from spvit.errors import exit_on_user_error
from spvit.images.sources import load_images


def check():
    """The bundle and its networks are whole, and this Pillow decodes the images."""
    bundle = load_bundle(".")
    for folder in bundle.networks:
        load_images("images", load_network(folder, bundle).preprocessing)


exit_on_user_error(check)'

target=$notebooks/$(basename "$here")
if [ "$here" != "$target" ]; then
    rm -rf "$target.partial"
    cp -R "$here" "$target.partial"
    rm -rf "$target"
    mv "$target.partial" "$target"
fi
echo "installed: $target; open latency.ipynb there in Jupyter"
