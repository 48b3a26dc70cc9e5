#!/bin/sh
# `make arm`: the kernels' tests, and every cell compiled = eager in float32 and float64, for 64-bit ARM under emulation.
#
# usage: sh tests/arm.sh python [pytest's arguments]
#
# A Debian tree for arm64 is unpacked into a folder, and wheels for it beside; QEMU runs its Python in this clone. Nothing
# of the tree is installed or configured, and nothing in this system changes. Making it takes root (debootstrap's wish),
# about a minute and 900 MB; running, five to ten minutes of one core. ARM_CACHE is the folder.
set -eu

python=$1
shift
folder=${ARM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minigrad-arm}
tree=$folder/tree wheels=$folder/wheels

missing=
for tool in qemu-aarch64-static debootstrap dpkg-deb; do
	command -v $tool >/dev/null || missing="$missing $tool"
done
test -d "$tree" || test "$(id -u)" = 0 || missing="$missing root"
if test -n "$missing"; then
	echo "make arm: missing here:$missing (Debian has the tools in qemu-user-static, debootstrap and dpkg)" >&2
	exit 1
fi

if ! test -d "$tree"; then
	echo "unpacking Debian for arm64 into $tree"
	rm -rf "$tree.part"
	mkdir -p "$folder"
	if ! debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$tree.part" >"$folder/log"; then
		echo "make arm: debootstrap failed: $(tail -1 "$folder/log")" >&2
		exit 1
	fi
	for package in "$tree.part"/var/cache/apt/archives/*.deb; do
		dpkg-deb -x "$package" "$tree.part"
	done
	rm -rf "$tree.part"/var/cache/apt/archives
	mv "$tree.part" "$tree"
fi

if ! test "$wheels/.ready" -nt pyproject.toml; then
	echo "installing wheels for arm64 into $wheels"
	rm -rf "$wheels"
	link=$(readlink "$tree/usr/bin/python3")
	"$python" -m pip install --quiet --no-warn-conflicts --target "$wheels" --only-binary=:all: --implementation cp \
		--python-version "${link#python}" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
		--platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
		numpy numba llvmlite platformdirs rich safetensors pytest hypothesis
	touch "$wheels/.ready"
fi

test $# -gt 0 || set -- tests/compiler/test_kernels.py \
	tests/compiler/test_compile.py::test_cell_compiled_equals_eager_at_every_size_with_one_program
# NumPy's products set floating-point flags under emulation that they should not: no error of eager's is made of them.
export PYTHONPATH="$PWD:$wheels" PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1
exec qemu-aarch64-static -L "$tree" "$tree/usr/bin/python3" -m pytest -q -p no:cacheprovider \
	-W ignore::RuntimeWarning:minigrad.ops "$@"
