#!/usr/bin/env bash
# English prose for the quick start, as JSON lines.
#
# The text is "An Anarchist FAQ" from the Debian package `anarchism` (7 MB to fetch, GPL-2): 10 MB of essays in plain
# English without code or tables, the largest such text in Debian. It comes as Markdown, so that awk suffices.
# The package is unpacked into a temporary directory and not installed: slim systems install no documentation.
set -euo pipefail

repository=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/..")
# shellcheck source=jobs/common.sh
source "$repository/jobs/common.sh"

usage() {
  cat <<'END'
jobs/prose.sh - English prose as JSON lines, {"title": ..., "text": ...} a document

Usage: jobs/prose.sh OUTPUT.jsonl [KEEP_ONE_IN] [--help]

  OUTPUT.jsonl  where the text goes; its directory is made
  KEEP_ONE_IN   only every KEEP_ONE_IN-th document is kept (default 1: all)
  --help        this text

The text is "An Anarchist FAQ" from the Debian package `anarchism`, 7 MB to fetch.
END
}

arguments=()
for argument in "$@"; do
  case $argument in
    -h | --help) usage && exit ;;
    -*) die "unknown option '$argument'; --help lists the known ones" ;;
    *) arguments+=("$argument") ;;
  esac
done
((${#arguments[@]} >= 1)) || die "the output's name is missing; see --help"
((${#arguments[@]} <= 2)) || die "too many arguments ('${arguments[2]}'); see --help"
output=${arguments[0]}
keep_one_in=${arguments[1]:-1}
[[ $keep_one_in =~ ^[1-9][0-9]*$ ]] || die "KEEP_ONE_IN is a positive whole number, not '$keep_one_in'"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

download() (
  cd "$work"
  apt-get download -qq -o APT::Sandbox::User=root anarchism
)

# Every page but tables of contents, lists of links, and appendix 13, an earlier edition of section F.
pages() {
  local page
  for page in "$1"/sec*[0-9].md "$1"/sec*int.md "$1"/append*.md "$1"/{intro,10years,vol1intro,vol2intro}.md; do
    [[ $page == */append13*.md ]] || printf '%s\n' "$page"
  done
}

if ! download 2>"$work/log"; then
  # A fresh machine has no package lists yet.
  if ! can_be_root || ! update_package_lists || ! download 2>"$work/log"; then
    cat "$work/log" >&2
    die "could not fetch the Debian package 'anarchism', which the quick start takes its text from: is there a network," \
      "and does 'apt-get update' work?"
  fi
fi

dpkg-deb -x "$work"/anarchism_*.deb "$work/package"
markdown=$work/package/usr/share/doc/anarchism/markdown
gunzip "$markdown"/*.gz

mapfile -t files < <(pages "$markdown")
mkdir -p "$(dirname "$output")"
awk -v keep_one_in="$keep_one_in" -f "$repository/jobs/prose.awk" "${files[@]}" >"$output.partial"
mv "$output.partial" "$output"
printf '%s: %d documents, %d kB of text\n' "$output" "$(wc -l <"$output")" $(($(wc -c <"$output") / 1000))
