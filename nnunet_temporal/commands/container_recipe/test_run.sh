#!/usr/bin/env bash
# Builds the image and runs it on test/input as the platform does: without a network, its input read-only.
# Arguments go to 'docker run', such as: ./test_run.sh --gpus all
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
image="${IMAGE:-heart-movies}"
mkdir -p "$here/test/output"
# The image's user is another than the owner of this folder.
chmod a+rwx "$here/test/output"
docker build --platform linux/amd64 --tag "$image" "$here"
docker run --rm --platform linux/amd64 --network none --tmpfs /tmp "$@" \
    --volume "$here/test/input:/input:ro" --volume "$here/test/output:/output" "$image"
