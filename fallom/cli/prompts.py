"""``fallom prompts``: the prompts and their A/B tests on this host, listed, shown and rendered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fallom.cli.exits import EXIT_CODES
from fallom.cli.host import host_options
from fallom.cli.published import keys_beginning, known_items, opened, pairs_of, shown_item
from fallom.cli.screen import echo_json, json_option, table, terminal_width, visible

__all__ = ["prompts"]


@click.group()
def prompts() -> None:
    """Look at the prompts on this host, and render them.

    Nothing is asked of a server.
    """


@prompts.command("ls", epilog=EXIT_CODES)
@host_options
@json_option
def prompts_ls(as_json: bool, state_dir: str | None, namespace: str | None) -> None:
    """List the prompts and the A/B tests.

    Prompts with their placeholders, tests with their shares.
    """
    from fallom._core.template import compile_template
    from fallom._snapshot.entries import Kind

    with opened(state_dir, namespace) as history:
        found = known_items(history, Kind.PROMPT)
        tests = known_items(history, Kind.AB_TEST)
    if as_json:
        echo_json({"prompts": found, "prompt_ab_tests": tests})
        return
    rows: list[tuple[Any, ...]] = []
    for item in found:
        texts = [item["system_prompt"], item["user_template"]]
        texts += [message["content"] for message in item.get("messages", ())]
        names = dict.fromkeys(compile_template("\n".join(texts)).names)
        rows.append(("prompt", item["key"], item["version"], ", ".join(names) or "-"))
    for item in tests:
        shares = ", ".join(f"{v['prompt_key']} {v['weight']:g} %" for v in item["variants"])
        rows.append(("A/B test", item["key"], item["version"], shares))
    for line in table(("kind", "key", "version", "placeholders or shares"), rows, terminal_width()):
        click.echo(line)


@prompts.command("show", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("key", shell_complete=keys_beginning("PROMPT"))
@click.option("--version", type=int, help="Another version than the current one.")
def prompts_show(
    key: str, version: int | None, as_json: bool, state_dir: str | None, namespace: str | None
) -> None:
    """Show a prompt with its placeholders, or an A/B test.

    An A/B test is shown as JSON.
    """
    from fallom._snapshot.entries import Kind

    with opened(state_dir, namespace) as history:
        manifest = history.at(None)
        assert manifest is not None
        if key in manifest.sections.get(Kind.AB_TEST, {}):
            echo_json(shown_item(history, Kind.AB_TEST, "prompt A/B test", key, version))
            return
        item = shown_item(history, Kind.PROMPT, "prompt", key, version)
    if as_json:
        echo_json(item)
        return
    versions = ", ".join(map(str, item["versions"]))
    click.secho(f"{visible(key)} version {item['version']} (of {versions})", bold=True)
    _echo_texts((message["role"], message["content"]) for message in item.get("messages", ()))
    _echo_texts((("system", item["system_prompt"]), ("user", item["user_template"])))


@prompts.command("render", epilog=EXIT_CODES)
@host_options
@json_option
@click.argument("key", shell_complete=keys_beginning("PROMPT"))
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="For placeholders.")
@click.option("--version", type=int, help="Another version than the current one.")
@click.option("--session", metavar="ID", help="KEY is an A/B test: what this session gets of it.")
def prompts_render(
    key: str,
    variables: tuple[str, ...],
    version: int | None,
    session: str | None,
    as_json: bool,
    state_dir: str | None,
    namespace: str | None,
) -> None:
    """Give the texts that an application gets.

    The variables are in them; the name of one without a value stays.
    """
    from fallom._core.assignment import CompiledTest, choose_prompt
    from fallom._core.prompt import CompiledPrompt
    from fallom._snapshot.entries import Kind

    if session is not None and version is not None:
        raise click.UsageError("The A/B test says the version: give --session or --version.")
    values = pairs_of("--var", variables)
    index = None
    with opened(state_dir, namespace) as history:
        manifest = history.at(None)
        assert manifest is not None
        prompt_key = key
        if session is not None:
            test = history.entry(manifest, Kind.AB_TEST, key)
            if not isinstance(test, CompiledTest):
                shown_item(history, Kind.AB_TEST, "prompt A/B test", key, None)
                raise click.ClickException(f"A/B test {key!r} cannot be read.")
            index = choose_prompt(test, session)
            prompt_key, version = test.variants[index]
        elif key in manifest.sections.get(Kind.AB_TEST, {}):
            raise click.UsageError(f"{key!r} is an A/B test; give --session ID.")
        prompt = history.entry(manifest, Kind.PROMPT, prompt_key, version)
        if not isinstance(prompt, CompiledPrompt):
            shown_item(history, Kind.PROMPT, "prompt", prompt_key, version)
            raise click.ClickException(f"Prompt {prompt_key!r} cannot be read.")
    system, user, chat, missing, unused = prompt.render(values)
    if as_json:
        echo_json(
            {
                "key": prompt.key,
                "version": prompt.version,
                "variant_index": index,
                "system": system,
                "user": user,
                "messages": chat and [{"role": role, "content": text} for role, text in chat],
                "missing": missing,
                "unused": unused,
            }
        )
        return
    _echo_texts(chat or (("system", system), ("user", user)))
    if missing:
        click.secho(f"! without a value: {', '.join(missing)}; give --var", err=True, fg="yellow")
    if unused:
        click.secho(f"! in no placeholder: {', '.join(unused)}", err=True, fg="yellow")


def _echo_texts(texts: Iterable[tuple[str, str]]) -> None:
    for name, text in texts:
        if text:
            click.secho(f"--- {name}", dim=True)
            click.echo(text)
