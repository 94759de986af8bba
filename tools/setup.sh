#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the build needs and says what it does: Debian packages, then the pinned wheels in .venv.
# Without the right to install packages it names what is missing, with the command, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build make pkg-config ccache git ca-certificates
  python3 python3-dev python3-venv
  libnetcdf-dev netcdf-bin libyaml-cpp-dev libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev
  zlib1g-dev libssl-dev libmagics++-dev libmagics++-data libgtest-dev libbenchmark-dev)

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    as_root=()
  elif sudo -n true 2>/dev/null; then
    as_root=(sudo)
  else
    printf 'setup: these Debian packages are missing and this user may not install them; please run\n  sudo %s\n' \
      "$install" >&2
    exit 1
  fi
  echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $install; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: '$install' failed; its output is in $log" >&2
    exit 1
  fi
  rm -f "$log"
fi

stamp=.venv/halcyon-requirements.sha256
wanted=$(sha256sum <requirements.txt)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing the pinned wheels of requirements.txt into .venv (5 GB on disk, some minutes)"
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
  echo "$wanted" >"$stamp"
fi
