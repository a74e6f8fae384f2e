"""Rules as data: what a phrase fits, which rule decides, and what is refused when the data is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from malote_relay.delivery.answers.providers import Provider, Providers
from malote_relay.delivery.answers.rules import BadRules, Rule, Rules, first_words, load, reduced
from malote_relay.delivery.reply import parse

HEAD = """
[classes]
quota = "full"
policy = "a rule"
"""


PROVIDERS = Providers({"acme": Provider(suffixes=("mx.acme.example",), source="")})


def rules(*given: Rule) -> Rules:
    return Rules({"quota": "", "policy": "", "spam": ""}, PROVIDERS, given)


def decided(book: Rules, reply: str, host: str = "") -> str:
    rule = book.find(parse(reply), host)
    return rule.bounce_class if rule else "none"


def test_a_reply_is_reduced_to_words() -> None:
    assert reduced("Caixa-Postal CHEIA: <spam@acme.example> não  existe (#5.1.1)") == (
        " caixa postal cheia nao existe 5 1 1 "
    )


@pytest.mark.parametrize(
    ("phrase", "text", "fits"),
    [
        ("mailbox full", "Mailbox full", True),
        ("mailbox full", "the mailbox, full", True),
        ("mailbox full", "mailbox fullness", False),
        ("mailbox full", "emailbox full", False),
        ("mailbox (is |)full", "mailbox is full", True),
        ("mailbox (is |)full", "mailbox full", True),
        ("(mailbox|inbox) full", "inbox full", True),
        ("ib(101|102)", "see IB102", True),
        ("ib(101|102)", "see IB103", False),
        ("greylist*", "Greylisting in action", True),
        ("greylist*", "ungreylisted", False),
        ("quota * exceeded", "quota of 10 MB exceeded", True),
        ("quota * exceeded", "quota exceeded", True),
        ("quota * exceeded", f"quota {'x ' * 40}exceeded", False),
        ("caixa (* |)cheia", "caixa cheia", True),
        ("caixa (* |)cheia", "caixa de entrada cheia", True),
        ("doesn t exist", "doesn't exist", True),
        ("spam", "<spam@acme.example> unknown", False),
        ("user unknown", "a@acme.example...User unknown", True),
    ],
)
def test_a_phrase_fits_whole_words(phrase: str, text: str, fits: bool) -> None:
    assert (decided(rules(Rule(bounce_class="quota", text=(phrase,))), f"550 {text}") == "quota") is fits


def test_every_condition_must_hold_and_the_first_rule_that_fits_decides() -> None:
    book = rules(
        Rule(bounce_class="spam", provider="acme", text=("full",)),
        Rule(bounce_class="quota", codes=(452,), enhanced=("2.2",), temporary=True, text=("full",)),
        Rule(bounce_class="policy", codes=(452, 552)),
    )
    assert decided(book, "452 4.2.2 full") == "quota"
    assert decided(book, "452 4.2.1 full") == "policy"
    assert decided(book, "452 full") == "policy"
    assert decided(book, "552 5.2.2 full") == "policy"
    assert decided(book, "550 full") == "none"
    assert decided(book, "452 4.2.2 full", "a.mx.acme.example[192.0.2.1]") == "spam"


def test_an_enhanced_code_is_also_found_where_qmail_puts_it() -> None:
    book = rules(Rule(bounce_class="policy", enhanced=("1.1",)), Rule(bounce_class="quota", enhanced=("",)))
    assert decided(book, "553 sorry, no mailbox here by that name. (#5.1.1)") == "policy"
    assert decided(book, "453 odd (#5.1.1)") == "quota"
    assert decided(book, "553 from 5.1.1.1") == "quota"


def test_the_words_that_a_phrase_may_begin_with() -> None:
    assert first_words("(very |)(poor|bad) score") == {"very", "poor", "bad"}
    assert first_words("relay(ing|) denied") == {"relaying", "relay"}
    assert first_words("greylist*") == {"greylist*"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[[rules]]\nclass = "quotas"\ncodes = [452]',
            "rule 1 (class quotas): no such class; there are quota, policy",
        ),
        ('[[rules]]\nclass = "quota"\nprovider = "acne"', "no such provider as 'acne'"),
        ('[[rules]]\nclass = "quota"', "it has no condition"),
        ('[[rules]]\nclass = "quota"\ncodes = [250]', "250 is no code of a refusal"),
        ('[[rules]]\nclass = "quota"\nenhanced = ["5.1.1"]', "like \"1.1\", not '5.1.1'"),
        ('[[rules]]\nclass = "quota"\ntext = ["Full"]', "'Full': write lower-case words"),
        ('[[rules]]\nclass = "quota"\ntext = ["(a|b"]', "'(a|b': write lower-case words"),
        ('[[rules]]\nclass = "quota"\ntext = ["a|b"]', "'a|b': write lower-case words"),
        ('[[rules]]\nclass = "quota"\ntext = [""]', "'': write lower-case words"),
        ('[[rules]]\nclass = "quota"\ntext = ["* full"]', "'* full': write lower-case words"),
        ('[[rules]]\nclass = "quota"\ntext = ["(is |)"]', "must begin with a word"),
        ('[[rules]]\nclass = "quota"\ntext = ["to*"]', "at least 3 letters"),
        ('[[rules]]\nclass = "quota"\ntext = ["full"]\nhint = 1', "unknown field `hint`"),
        ('[[rules]]\nclass = "quota"\ncodes = ["452"]', "Expected `int`, got `str` - at `$.rules[0].codes[0]`"),
        ("[[rules", "Expected ']]' at the end of an array declaration"),
    ],
)
def test_a_bad_rule_is_refused_with_its_place_and_reason(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "replies.toml"
    file.write_text(HEAD + text)
    with pytest.raises(BadRules) as caught:
        load(file, PROVIDERS)
    assert str(caught.value).startswith("replies.toml: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("450-4.2.1 Their mailbox 450-4.2.1 is full for 450 4.2.1 now", "quota"),
        ("550-Their mailbox 550-is 550 full", "quota"),
        ("550 Their mailbox 450-is full", "none"),
        ("550 Their mailbox 550 is full", "none"),
    ],
)
def test_codes_between_the_lines_of_a_reply_that_was_put_in_one_do_not_part_its_words(reply: str, found: str) -> None:
    book = rules(Rule(bounce_class="quota", text=("mailbox is full",)))
    assert decided(book, reply) == found


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("550 sorry (#5.2.2)", "quota"),
        ("550 550 5.2.2 sorry", "quota"),
        ("550-sorry 550 5.2.2 no", "quota"),
        ("552 host mx said: 550 5.2.2 no", "quota"),
        ("450 host mx said: 550 5.2.2 no", "none"),
        ("550 version 5.2.2", "none"),
        ("550 5.7.1 550 5.2.2 sorry", "none"),
    ],
)
def test_an_enhanced_code_is_also_read_behind_a_code_in_the_text(reply: str, found: str) -> None:
    assert decided(rules(Rule(bounce_class="quota", enhanced=("2.2",))), reply) == found
