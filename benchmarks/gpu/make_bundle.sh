#!/usr/bin/env bash
# make_bundle.sh [OUTDIR]: what SGLang and Governor need on a GPU host without a network, in OUTDIR/carry
# (at most 64 MiB). Default OUTDIR: .gpu. Run it where pip reaches a package index.
#
# The host is expected to have x86-64 Linux, CPython 3.12, torch 2.11 for CUDA 13, Triton, numpy, scipy,
# scikit-learn, pyarrow, aiohttp, matplotlib, click, rich, pyyaml, prometheus-client, psutil and transformers.
# Versions are those of requirements/dev.txt. Of sglang-kernel only the code of Hopper (sm_90) is packed.
# Environment:
#   PREBUILT  folder with tvm-ffi/ and flashinfer-aot/: kernels compiled beforehand (optional)
#   PYTHON    any Python with pip 23 or newer; default python3
set -euo pipefail
ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
OUT=$(realpath -m "${1:-.gpu}")
PYTHON=${PYTHON:-python3}
PREBUILT=${PREBUILT:-$OUT/prebuilt}
WHEELS=$OUT/wheels SITE=$OUT/site CARRY=$OUT/carry LIMIT=$((64 << 20))
rm -rf "$SITE" "$CARRY"
mkdir -p "$SITE" "$CARRY" "$WHEELS"

NAMES="sglang sglang-kernel flashinfer-python apache-tvm-ffi xgrammar compressed-tensors loguru gguf
  fastapi starlette opentelemetry-api uvicorn python-multipart pydantic pydantic-core annotated-types
  pyzmq msgspec orjson pybase64 setproctitle openai jiter distro sniffio openai-harmony
  partial-json-parser jsonschema jsonschema-specifications referencing rpds-py dill soundfile cffi
  pycparser zstandard watchfiles transformers tokenizers"
PLATFORMS=$(for minor in $(seq 39 -1 5); do printf -- '--platform manylinux_2_%s_x86_64 ' "$minor"; done)
PLATFORMS="$PLATFORMS --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64"

for name in $NAMES; do # one at a time, so that what is there already is not fetched again
  pin=$(grep -m1 -E "^$name==" "$ROOT/requirements/dev.txt") || { echo "no pin of $name in requirements/dev.txt" >&2; exit 1; }
  compgen -G "$WHEELS/$(echo "${pin%%==*}" | tr - _)-${pin##*==}-*.whl" >/dev/null && continue
  # shellcheck disable=SC2086
  "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp $PLATFORMS -d "$WHEELS" "$pin"
  echo "fetched $pin"
done

# Unpacked without what a Hopper GPU and a text model do not use.
"$PYTHON" - "$WHEELS" "$SITE" <<'PYTHON'
import pathlib, re, sys, zipfile
wheels, site = map(pathlib.Path, sys.argv[1:])
skipped = re.compile(
    r"sgl_kernel/(flash_ops|flashmla_ops|infllm_ops|sm100/|testing/)"
    r"|sglang/(multimodal_gen|test|eval)/|sglang/srt/(server|grpc|multimodal)/_core|tools/"
    r"|xgrammar/lib/|tvm_ffi/(3rdparty|src)/|[^/]+\.data/(scripts|data)/"
)
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as packed:
        for item in packed.infolist():
            if not skipped.match(item.filename):
                packed.extract(item, site)
PYTHON
find "$SITE/xgrammar" "$SITE/tvm_ffi" -name '*.so' -exec strip --strip-unneeded {} + 2>/dev/null || true

# The n-gram source leaves out a header that g++ 12 and newer want.
NGRAM=$SITE/sglang/kernels/jit/csrc/ngram_corpus/result.h
[ ! -e "$NGRAM" ] || sed -i '0,/#include/s//#include <cstddef>\n#include/' "$NGRAM"
# sglang.utils asks IPython for two names that a server never uses.
mkdir -p "$SITE/IPython"
echo '__version__ = "0.0.0"' >"$SITE/IPython/__init__.py"
printf 'def HTML(data=None, **_): return data\n\n\ndef display(*objects, **_): print(*objects)\n' >"$SITE/IPython/display.py"
if [ -d "$PREBUILT" ]; then
  mkdir -p "$SITE/_jit" "$SITE/flashinfer/data/aot"
  [ ! -d "$PREBUILT/tvm-ffi" ] || cp -r "$PREBUILT/tvm-ffi" "$SITE/_jit/"
  [ ! -d "$PREBUILT/flashinfer-aot" ] || cp -r "$PREBUILT/flashinfer-aot/." "$SITE/flashinfer/data/aot/"
fi
find "$SITE" -name __pycache__ -prune -exec rm -rf {} +
tar -C "$SITE" --sort=name --owner=0 --group=0 --mtime=2026-01-01 -cf - . | xz -T2 -6 >"$CARRY/site.tar.xz"

cat >"$CARRY/env.sh" <<'ENV'
# Source this on the GPU host: unpacks site.tar.xz once, and sets what SGLang needs to find.
CARRIED=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
SITE_DIR=${SITE_DIR:-/tmp/governor-gpu-site}
if [ ! -e "$SITE_DIR/.unpacked" ]; then
  mkdir -p "$SITE_DIR"
  "${PYTHON:-python3}" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="data")' \
    "$CARRIED/site.tar.xz" "$SITE_DIR"
  touch "$SITE_DIR/.unpacked"
fi
export PYTHONPATH=$SITE_DIR${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export TVM_FFI_CACHE_DIR=$SITE_DIR/_jit/tvm-ffi FLASHINFER_WORKSPACE_BASE=$SITE_DIR/_flashinfer
# For kernels that are compiled there: the toolkit, a libcuda to link, cuRAND's headers.
NVCC=$(command -v nvcc || true)
for candidate in "${CUDA_HOME:-}" ${NVCC:+"$(dirname "$(dirname "$(readlink -f "$NVCC")")")"} /usr/local/cuda /usr/local/cuda-13*; do
  if [ -x "$candidate/bin/nvcc" ] && [ -e "$candidate/include/cuda_runtime.h" ]; then
    export CUDA_HOME=$candidate
    break
  fi
done
LIBCUDA=$(ldconfig -p 2>/dev/null | awk '/libcuda\.so\.1 /{print $NF; exit}')
export LIBRARY_PATH=${LIBCUDA:+$(dirname "$LIBCUDA"):}${CUDA_HOME:-/usr/local/cuda}/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
NVIDIA=$("${PYTHON:-python3}" -c 'import nvidia.cu13; print(list(nvidia.cu13.__path__)[0])' 2>/dev/null || true)
if [ ! -e "${CUDA_HOME:-/usr/local/cuda}/include/curand_kernel.h" ] && [ -n "$NVIDIA" ]; then
  mkdir -p "$SITE_DIR/_curand"
  cp "$NVIDIA"/include/curand*.h "$SITE_DIR/_curand/" && export CPATH=$SITE_DIR/_curand${CPATH:+:$CPATH}
fi
ENV
SIZE=$(du -sb --apparent-size "$CARRY" | cut -f1)
echo "$CARRY: $SIZE bytes of $LIMIT"
[ "$SIZE" -le "$LIMIT" ]
