"""Make the tickets: month-1.jsonl to month-6.jsonl next to this file, the same bytes on every run.

Standard library only (Python 3.11 or newer, for tomllib). The phrases are in grammar.toml. Run: python datasets/tickets/make.py
"""

import json
import random
import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
SEED = 2025
ROWS_A_MONTH = 500
RULE_CHANGE_MONTH = 4
LABEL_NOISE = 0.03
DAYS_OF_MONTH = [31, 28, 31, 30, 31, 30]
LABELS = ["delivery", "returns", "payment", "account", "product", "warranty"]
TOPIC_WEIGHTS = {"delivery": 18, "returns": 18, "payment": 18, "account": 14, "product": 15, "warranty": 11, "damaged": 6}
CHANNEL_WEIGHTS = {"email": 5, "chat": 3, "phone": 2}
TYPO_RATES = {"email": 0.01, "chat": 0.05, "phone": 0.0}  # a word
PEOPLE = ["Ana", "Bo", "Chidi", "Dora", "Emre", "Farah", "Greta", "Hugo", "Ines", "Jonas", "Kemi", "Lena", "Mats", "Noor", "Otto", "Priya"]
CONTRASTS = [
    "This is not about {other}, it is about {own}",
    "{own} is why I write, not {other}",
    "Forget {other}, my problem is {own}",
    "I have another ticket open for {other}, this one is for {own}",
    "First it was {other}, that is solved, now it is {own}",
    "Nobody answers me about {own}, I only ever hear about {other}",
    "The bot keeps telling me about {other} when I ask about {own}",
    "Different from {other} {when}, today I need help with {own}",
]
QUESTION_STARTS = ("can ", "could ", "do ", "does ", "how ", "is ", "what ", "when ", "where ", "which ", "who ", "will ", "any chance")
Grammar = dict[str, dict[str, list[str]]]


def main() -> None:
    grammar = tomllib.loads((HERE / "grammar.toml").read_text(encoding="utf-8"))
    rng = random.Random(SEED)
    seen: set[str] = set()
    for month in range(1, 7):
        phrases = in_season(grammar, month)
        rows = []
        while len(rows) < ROWS_A_MONTH:
            row = ticket(rng, phrases, month)
            if row["text"].lower() not in seen and len(row["text"].split()) >= 3:
                seen.add(row["text"].lower())
                rows.append(row)
        rows.sort(key=lambda row: row["created"])
        lines = [json.dumps({"id": f"t-{(month - 1) * ROWS_A_MONTH + i:06}", **row}) for i, row in enumerate(rows, 1)]
        (HERE / f"month-{month}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def ticket(rng: random.Random, phrases: Grammar, month: int) -> dict[str, str]:
    topic = weighted(rng, TOPIC_WEIGHTS)
    channel = weighted(rng, CHANNEL_WEIGHTS)
    day = 1 + int(rng.random() * DAYS_OF_MONTH[month - 1])
    text = CHANNELS[channel](rng, phrases, topic)
    text = typos(rng, text, TYPO_RATES[channel])
    label = label_of(topic, month)
    if rng.random() < LABEL_NOISE:
        label = pick(rng, [other for other in LABELS if other != label])
    return {"text": text, "label": label, "channel": channel, "created": f"2025-{month:02}-{day:02}"}


def label_of(topic: str, month: int) -> str:
    if topic != "damaged":
        return topic
    return "delivery" if month < RULE_CHANGE_MONTH else "warranty"


def email(rng: random.Random, phrases: Grammar, topic: str) -> str:
    sentences = body(rng, phrases, topic, opener=0.6, aside=0.45, detail=0.6, ask=0.6)
    if rng.random() < 0.15:  # the long ones
        sentences = [fill(rng, phrases, "{opener}"), *sentences, fill(rng, phrases, "{detail}"), fill(rng, phrases, "{detail}")]
        sentences += [fill(rng, phrases, pick(rng, phrases[other_label(rng, topic)]["aside"])), fill(rng, phrases, "{ask}")]
    text = join_sentences(rng, sentences)
    if rng.random() < 0.7:
        text = fill(rng, phrases, "{greeting}") + pick(rng, [", ", ",\n", "! "]) + text
    if rng.random() < 0.6:
        text = text + pick(rng, [" ", "\n"]) + fill(rng, phrases, "{signoff}")
    return text.upper() if rng.random() < 0.02 else text


def chat(rng: random.Random, phrases: Grammar, topic: str) -> str:
    if rng.random() < 0.45:
        text = fill(rng, phrases, pick(rng, phrases[topic]["short"])) + pick(rng, ["", "", "?", "!!", " ..."])
    else:
        sentences = body(rng, phrases, topic, opener=0.2, aside=0.3, detail=0.3, ask=0.3)
        text = pick(rng, [", ", " ", "... ", ". "]).join(sentences) + pick(rng, ["", "?", "??", "!"])
    if rng.random() < 0.2:
        text = pick(rng, ["hi ", "hello, ", "hey ", "pls help: ", "urgent! "]) + text
    return text.lower() if rng.random() < 0.7 else text


def phone(rng: random.Random, phrases: Grammar, topic: str) -> str:
    """Notes taken during a call, in a terse style."""
    sentences = body(rng, phrases, topic, opener=0.1, aside=0.45, detail=0.6, ask=0.1)
    return pick(rng, ["Caller says: ", "Customer: ", "Call. ", ""]) + "; ".join(sentences)


CHANNELS = {"email": email, "chat": chat, "phone": phone}


def body(rng: random.Random, phrases: Grammar, topic: str, opener: float, aside: float, detail: float, ask: float) -> list[str]:
    """The matter itself, with shared sentences and another topic's aside around it."""
    sentences = [main_sentence(rng, phrases, topic)]
    if rng.random() < aside:
        sentences = with_aside(rng, sentences[0], fill(rng, phrases, pick(rng, phrases[other_label(rng, topic)]["aside"])))
    if rng.random() < detail:
        sentences.insert(int(rng.random() * (len(sentences) + 1)), fill(rng, phrases, "{detail}"))
    if rng.random() < opener:
        sentences.insert(0, fill(rng, phrases, "{opener}"))
    if rng.random() < ask:
        sentences.append(fill(rng, phrases, "{ask}"))
    return sentences


def main_sentence(rng: random.Random, phrases: Grammar, topic: str) -> str:
    if rng.random() < 0.2:
        own = pick(rng, phrases[topic]["matter"])
        other = pick(rng, phrases[other_label(rng, topic)]["matter"])
        return fill(rng, phrases, pick(rng, CONTRASTS).replace("{own}", own).replace("{other}", other))
    return fill(rng, phrases, pick(rng, phrases[topic]["core"]))


def other_label(rng: random.Random, topic: str) -> str:
    """A label that the topic has in no month."""
    return pick(rng, [label for label in LABELS if label not in (label_of(topic, 1), label_of(topic, 6))])


def with_aside(rng: random.Random, matter: str, aside: str) -> list[str]:
    way = int(rng.random() * 5)
    if way == 0:
        return [f"{aside}, but {matter}"]
    if way == 1:
        return [f"{matter}, although {aside}"]
    if way == 2:
        return [aside, matter]
    if way == 3:
        return [matter, aside]
    return [f"{aside}, so that is not it", matter]


def join_sentences(rng: random.Random, sentences: list[str]) -> str:
    return " ".join(sentence[:1].upper() + sentence[1:] + end_mark(rng, sentence) for sentence in sentences)


def end_mark(rng: random.Random, sentence: str) -> str:
    if sentence.lower().startswith(QUESTION_STARTS):
        return pick(rng, ["?", "?", "?", "?", "??", "."])
    return pick(rng, [".", ".", ".", ".", ".", "!", "...", ""])


def fill(rng: random.Random, phrases: Grammar, text: str) -> str:
    """Replace slots, left to right, until none is left."""
    while found := re.search(r"\{(\w+)\}", text):
        text = text[: found.start()] + slot(rng, phrases, found[1]) + text[found.end() :]
    return text


def slot(rng: random.Random, phrases: Grammar, name: str) -> str:
    match name:
        case "number":
            return str(10_000 + int(rng.random() * 90_000))
        case "days":
            return str(3 + int(rng.random() * 25))
        case "amount":
            return pick(rng, ["{} euros", "{}.99", "EUR {}", "{}"]).format(5 + int(rng.random() * 200))
        case "person":
            return pick(rng, PEOPLE)
        case _:
            return pick(rng, phrases["neutral"].get(name) or phrases["slots"][name])


def typos(rng: random.Random, text: str, rate: float) -> str:
    words = text.split(" ")
    return " ".join(typo(rng, word) if len(word) > 3 and word.isalpha() and rng.random() < rate else word for word in words)


def typo(rng: random.Random, word: str) -> str:
    """Swap two letters, drop one or double one."""
    i = 1 + int(rng.random() * (len(word) - 2))
    return pick(rng, [word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]])


def in_season(grammar: Grammar, month: int) -> Grammar:
    """The phrases used in this month, without their `@from-to` marks."""
    return {
        section: {name: [text for text in map(lambda raw: seasonal(raw, month), texts) if text] for name, texts in lists.items()}
        for section, lists in grammar.items()
    }


def seasonal(raw: str, month: int) -> str:
    found = re.search(r" @(\d?)(-?)(\d?)$", raw)
    if not found:
        return raw
    first = int(found[1] or 1)
    last = int(found[3] or 6) if found[2] else first
    return raw[: found.start()] if first <= month <= last else ""


def weighted(rng: random.Random, weights: dict[str, int]) -> str:
    at = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        at -= weight
        if at < 0:
            return name
    return name


def pick(rng: random.Random, options: list[str]) -> str:
    """random.Random promises the same numbers in later versions of Python for random() only."""
    return options[int(rng.random() * len(options))]


if __name__ == "__main__":
    main()
