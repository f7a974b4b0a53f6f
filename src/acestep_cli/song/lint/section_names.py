"""The names of sections, as tags have them, in many languages; those that are misspelt, and those without brackets."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

#: Sections by their English names, with their names in other languages, which are accepted as tags, too.
SECTIONS = {
    "Intro": "intro introduction introducción introdução einleitung вступление интро 前奏 イントロ 인트로 مقدمة",
    "Verse": "verse verso vers verset couplet strophe strofa strofe estrofa zwrotka sloha versszak säkeistö verš kıta "
    "куплет στροφή κουπλέ 主歌 aメロ 벌스 בית مقطع",
    "Pre-Chorus": "prechorus precoro prérefrain prerefrain prestribillo preestribillo prérefrão предприпев 预副歌 导歌 "
    "導歌 bメロ 프리코러스",
    "Chorus": "chorus refrain coro estribillo ritornello refrão refren refrén refräng refreng omkvæd kehrreim kerto "
    "refrein nakarat припев приспів ρεφρέν פזמון لازمة 副歌 サビ 후렴 후렴구 코러스",
    "Post-Chorus": "postchorus postcoro postrefrain 포스트코러스",
    "Hook": "hook хук 훅",
    "Bridge": "bridge puente ponte brücke brygga híd бридж 桥段 橋段 ブリッジ cメロ 브릿지",
    "Interlude": "interlude interludio interlúdio intermezzo zwischenspiel mellanspel проигрыш 间奏 間奏 간주",
    "Instrumental": "instrumental instrumentale strumentale инструментал 纯音乐 純音樂 インスト 연주",
    "Solo": "solo sólo соло 独奏 獨奏 ソロ 솔로",
    "Drop": "drop дроп ドロップ 드롭",
    "Build": "build buildup",
    "Break": "break",
    "Breakdown": "breakdown",
    "Outro": "outro coda schluss аутро кода 尾奏 尾声 アウトロ 아웃트로 خاتمة",
    "Fade Out": "fadeout",
    "Spoken Word": "spoken spokenword",
    "Rap": "rap рэп 说唱 ラップ 랩",
}
NAMED = {name: section for section, names in SECTIONS.items() for name in names.split()}
#: English names that are long enough to be recognised with a spelling mistake.
TARGETS = ("intro", "verse", "chorus", "refrain", "bridge", "interlude", "instrumental", "break", "breakdown", "outro",
           "prechorus", "postchorus", "build", "buildup", "fadeout")  # fmt: skip
#: Section names of other languages that are long enough for that.
LONG_NAMES = tuple(name for name in NAMED if len(name) >= 7 and name not in TARGETS)
#: Other words that are spelled like those.
NEIGHBOURS = (
    "verses versed reverse inverse universe versus nerve serve chords choral choir chores bridges bridget bride ridge "
    "fridge into intra introit breaks breaking breath bread builds building built guild instrument instruments "
    "instrumentals instrumentation interludes choruses refrains outdoor outdoors rebuild freak breakdowns outros "
    "intros"
)
WORDS = frozenset(NEIGHBOURS.split())
#: Sections whose names are hardly ever sung, and names that are a label even without brackets.
UNMISTAKABLE = ("Intro", "Verse", "Pre-Chorus", "Chorus", "Post-Chorus", "Bridge", "Interlude", "Instrumental", "Outro")
LABELS = ("intro", "verse", "chorus", "prechorus", "postchorus", "outro", "припев", "куплет")


def tag_name(tag: str) -> str:
    """Return the name in a tag without number and description: `chorus` for `Chorus 2 - anthemic`."""
    name = re.split(r"\s[-–—]+\s|[:：|,;(（/–—]", tag.casefold(), maxsplit=1)[0]
    name = re.sub(r"[#x×]?\d+\S*|\s(?:[ivx]+|[a-d])$", " ", name)
    return " ".join(re.findall(r"[^\W_]+", name))


@lru_cache(maxsize=1 << 10)
def section_of(tag: str) -> str | None:
    """Return the section of SECTIONS that `tag` names, in any of its languages, or None."""
    words = tag_name(tag).split()
    names = ["".join(words), "".join(words[:2]), *reversed(words)]
    return next((NAMED[name] for name in names if name in NAMED), None)


@lru_cache(maxsize=1 << 10)
def correct_tag(tag: str) -> str | None:
    """Return `tag` with its misspelt word corrected; None where nothing looks misspelt."""
    words = tag_name(tag).split()
    for word in words:
        is_short = len(word) < (4 if len(words) == 1 else 6)
        if is_short or word in NAMED or word in WORDS:
            continue
        if near := nearest(word):
            return re.sub(re.escape(word), near.title() if tag[0].isupper() else near, tag, flags=re.IGNORECASE)
    return None


def nearest(word: str) -> str | None:
    """Return the name of a section that `word` may be a misspelling of, by its letters or by its sound, or None."""
    if near := get_close_matches(word, TARGETS, n=1, cutoff=0.8):
        return near[0]
    if heard := get_close_matches(as_heard(word), list(HEARD), n=1, cutoff=0.85):
        return HEARD[heard[0]]
    return next(iter(get_close_matches(word, LONG_NAMES, n=1, cutoff=0.86)), None)


def as_heard(word: str) -> str:
    """Return `word` spelled by its sounds, so that `Verz` is equal to `Verse` and `Korus` to `Chorus`."""
    for letters, sound in (("ch", "k"), ("c", "k"), ("ph", "f"), ("z", "s"), ("y", "i"), ("ou", "o"), ("dg", "j")):
        word = word.replace(letters, sound)
    return re.sub(r"(.)\1", r"\1", word.replace("e", "") if word[-1:] != "e" else word[:-1].replace("e", ""))


HEARD = {as_heard(name): name for name in TARGETS}


def correct_name(name: str) -> str | None:
    """Return a section name in its usual form, `Verse 1` for `verse1`; None where it is not one."""
    name = re.sub(r"(?<=[^\W\d_])(?=\d)", " ", (correct_tag(name) or name).strip())
    return name[:1].upper() + name[1:] if len(name.split()) < 5 and section_of(name) else None


@lru_cache(maxsize=1 << 10)
def tag_for_line(text: str) -> str | None:
    """Return the section tag that a line such as `(Chorus)`, `Chorus:` or `## Chorus` stands for, or None."""
    if "[" in text or "]" in text:
        return None
    if named := re.match(r"([^\W\d_][\w -]{2,14}?(?: \d+)?)\s*[:：]\s*\S", text):
        return named[1] if NAMED.get(letters_only(named[1])) in UNMISTAKABLE else None
    if framed := re.match(r"[【［〔〖｛]\s*([^【】［］〔〕〖〗｛｝]{1,40}?)\s*[】］〕〗｝]", text):
        return framed[1] if section_of(framed[1]) else None
    name = text.strip("『』《》〈〉#*_:：()（）{}<>「」=~.•–— \t")
    section = NAMED.get(letters_only(re.split(r"\s[-–—]\s", name)[0]))
    if section is None or (name == text and letters_only(text) not in LABELS):
        return None
    return name if section in UNMISTAKABLE or text[-1] in ":：" or text[0] in "#*" else None


def letters_only(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name.casefold())
