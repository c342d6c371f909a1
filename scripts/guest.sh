#!/usr/bin/env bash
# Builds what runs inside an enclave, static and stripped, and prints its path: target/guest/mvault-init. The same sources give
# the same bytes in any folder: paths are taken out.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build
cd "$REPO"
folder=$(target_dir)/guest
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked
# Each by itself, so that one that fails ends this.
rustflags=$(release_rustflags "$folder")
cflags=$(release_paths "$folder" -ffile-prefix-map)
RUSTFLAGS="-C target-feature=+crt-static $rustflags" CFLAGS=$cflags \
    cargo build --quiet --release -p mvault-init --target "$triple" --target-dir "$folder" >&2
for name in mvault-init mvault-probe mvault-embed mvault-files; do
    strip -o "$folder/$name.new" "$folder/$triple/release/$name"
    mv "$folder/$name.new" "$folder/$name"
done
printf '%s\n' "$folder/mvault-init"
