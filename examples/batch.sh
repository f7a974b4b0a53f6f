#!/usr/bin/env bash
#
# NAME
#     batch.sh - render a folder of songs
#
# SYNOPSIS
#     examples/batch.sh [FOLDER [OUT [FLAG...]]]
#
# DESCRIPTION
#     Renders every spec in FOLDER (songs/) into OUT (takes/): *.yaml, *.yml, and each *.md that has front matter.
#     One process renders them all, so the weights are loaded once. Every FLAG goes to `acestep generate` as it is:
#
#         examples/batch.sh songs takes --format mp3 --model sft
#
#     Run it as often as you like. A song whose recipe has not changed since its file was written is skipped, so a
#     second run costs seconds, and a run that was interrupted goes on where it stopped. A song that has changed is
#     refused rather than replaced; move its file away, or add the FLAG --force, which renders all of them anew.
#
# OUTPUT
#     stdout    the path of each song that stands in OUT, one per line: pipe it on
#     stderr    progress, and at the end a line for each song: written, skipped or failed
#     files     OUT/<name>.flac, its sidecar OUT/<name>.flac.yaml, and the report of the run, OUT/batch.json
#
# EXIT STATUS
#     That of `acestep generate`:
#     0      every song stands in OUT
#     2      a flag or a spec asks for what cannot be, or FOLDER holds no spec; nothing was rendered
#     7      some songs failed as they were made; the others are done
#     9      an output cannot be written: a file of another recipe has its name, no space, no permission
#     130    interrupted; finished songs are kept
#     All others are in docs/scripting.md.
#
# ENVIRONMENT
#     ACESTEP    the program to run, when it is not `acestep` on the PATH

set -euo pipefail

ACESTEP=${ACESTEP:-acestep}

folder=${1:-songs}
out=${2:-takes}
shift $(($# < 2 ? $# : 2)) # what is left in "$@" are flags

# The specs. Not every file with such a name is one: audio that was rendered into FOLDER has its sidecar beside it,
# and a README.md has no front matter.

specs=()
for file in "$folder"/*.yaml "$folder"/*.yml "$folder"/*.md; do
    [[ -f $file ]] || continue # a pattern that matches nothing stands for itself
    case $file in
    *.md) [[ $(head -n 1 "$file") == ---* ]] || continue ;;
    *.yaml) [[ ! -e ${file%.yaml} ]] || continue ;;
    esac
    specs+=("$file")
done

if [[ ${#specs[@]} -eq 0 ]]; then
    echo "batch.sh: no song specs in $folder" >&2
    exit 2
fi

# The run. `set -e` would end this script at the first code that is not 0; `||` keeps the code instead. With --json,
# stdout is one object however the run ends, and progress stays on stderr. Every spec is read and every output
# checked before the first note: what can be refused is refused now, with 2 or 9, and not in the middle of the night.

mkdir -p "$out"
report=$out/batch.json
code=0
"$ACESTEP" generate "${specs[@]}" -o "$out/" --json "$@" >"$report" || code=$?

# The summary, read from the report. Python is there anyway; `jq -r '.outputs[] | "\(.status) \(.path)"'` would do.

python3 -c '
import json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
report = json.loads(text) if text.strip() else {}  # killed before it could report
for output in report.get("outputs", []):
    path, status = output["path"], output["status"]
    print(f"{status:8} {path}", end="", file=sys.stderr)
    if status == "failed":
        why = output.get("error") or "no reason given"
        why = why["message"] if isinstance(why, dict) else why
        print(f": {why}", end="", file=sys.stderr)
    elif status in ("written", "skipped"):
        print(path)
    print(file=sys.stderr)
' "$report"

# The verdict: what each code asks of you.

case $code in
0) echo "batch.sh: ${#specs[@]} songs, no failures" >&2 ;;
2) echo "batch.sh: nothing was rendered; mend what is named above and run this again" >&2 ;;
7) echo "batch.sh: some songs failed; mend them and run this again, the others will be skipped" >&2 ;;
9) echo "batch.sh: what lies in $out is in the way; move it, or add --force to replace it" >&2 ;;
130) echo "batch.sh: interrupted; run this again to go on" >&2 ;;
*) echo "batch.sh: acestep ended with code $code" >&2 ;;
esac
exit "$code"
