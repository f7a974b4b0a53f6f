#!/usr/bin/env bash
#
# NAME
#     musician.sh - from a spec to a project in your DAW
#
# SYNOPSIS
#     examples/musician.sh [SPEC [WORDS [OUT [FLAG...]]]]
#
# DESCRIPTION
#     Rolls four takes of SPEC (songs/night-drive.yaml), makes neighbours of the best, sings the words of the file WORDS
#     (examples/words.txt) to it, makes it longer, and hands it over to a DAW, all in OUT (session/). Every FLAG goes to
#     each command that renders:
#
#         examples/musician.sh songs/ballad.yaml my-words.txt ballad --model turbo
#
#     Run it as often as you like: seeds are fixed, so what is there is kept. Listen to OUT/rolls/ and
#     OUT/neighbours/ (`acestep listen` makes a page), and run it again with BEST and NEIGHBOUR.
#
# OUTPUT
#     stdout    the files of the project
#     files     OUT/rolls/, OUT/neighbours/, OUT/new-words.flac, OUT/longer.flac, and the project in OUT/daw/
#
# EXIT STATUS
#     That of the command that failed; all are in docs/scripting.md.
#
# ENVIRONMENT
#     ACESTEP      the program to run, when it is not `acestep` on the PATH
#     BEST         the number of the roll to go on with (1)
#     NEIGHBOUR    the number of its neighbour to go on with (1)

set -euo pipefail

ACESTEP=${ACESTEP:-acestep}

spec=${1:-songs/night-drive.yaml}
words=${2:-examples/words.txt}
out=${3:-session}
shift $(($# < 3 ? $# : 3)) # what is left in "$@" are flags
mkdir -p "$out"

# Each command prints the paths of its takes, one per line, in their order: that is how the next one finds them.

rolls=$("$ACESTEP" generate "$spec" -n 4 --seed 1 -o "$out/rolls/" "$@")
best=$(sed -n "${BEST:-1}p" <<<"$rolls")

# A little different: 15% of the way to the noise of another seed. The sidecar of a take is its spec.

neighbours=$("$ACESTEP" generate "$best.yaml" --variation 15% --variation-seed 100 -n 2 -o "$out/neighbours/" "$@")
take=$(sed -n "${NEIGHBOUR:-1}p" <<<"$neighbours")

# Other words to the same melody. What is sung so far, the take says itself.

"$ACESTEP" edit "$take" --lyrics-file "$words" --edit-start 10% --seed 1 -o "$out/new-words.flac" "$@" >&2

# Eight seconds more, made with the last twenty in view; all that was there stays, sample for sample.

"$ACESTEP" extend "$out/new-words.flac" --after 0:08 --context 20 -c "the same band, slowing down, last chord" \
    --seed 1 -o "$out/longer.flac" "$@" >&2

"$ACESTEP" export "$out/longer.flac" --daw --force -o "$out/daw/"
