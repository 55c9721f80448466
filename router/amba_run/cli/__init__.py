"""The command line: one module per command, loaded when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from amba_run import __version__

COMMANDS = {
    "check": "Judge functions as an upload would, for CI: size, imports, handlers, start.",
    "deploy": "Bundle a function, judge it, upload it.",
    "dev": "Serve the functions of a folder, and reload them as you save.",
    "doctor": "Say what is installed, what works here, and how to mend what does not.",
    "functions": "List, roll back or delete deployed functions; read their logs.",
    "invoke": "Send one request to a function of the running dev server.",
    "keys": "Make and revoke the API keys of a project.",
    "limits": "Show the limits in force, and what can be set.",
    "node": "Host deployed functions: the runtime behind deploy.",
    "projects": "Make and list the projects of a node.",
    "queues": "Bind, watch and mend queues; send to them, redeliver dead letters.",
    "schedules": "Add, list and delete schedules, with their next runs.",
    "secrets": "Show, set and unset the secrets that functions get.",
    "state": "Keep a state directory in a file, put it back, or empty it.",
    "token": "Print a credential for local use.",
    "trigger": "Fire a schedule or deliver to a queue's consumer now, and see what comes of it.",
    "verify": "Say whether a request's dispatch signature holds, and if not, why.",
}
"""Name -> one line of help; the module of the same name holds `command`."""


class _Lazy(click.Group):
    """Imports a command's module only when it is called: `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"amba_run.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here:  amba-run dev fixtures",
)
@click.version_option(__version__, prog_name="amba-run")
def cli() -> None:
    """Run, check and host Amba edge functions: the whole platform on a laptop, offline."""


def main() -> None:
    """Entry point of `amba-run`. Exit codes: architecture.md section 6."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line and return its exit code; errors go to stderr in plain words."""
    from amba_runtime.errors import InternalError, UserError

    try:
        code = cli.main(args, prog_name="amba-run", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except UserError as error:
        click.echo(f"error [{error.code}]: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        return 1
    except InternalError as error:
        click.echo(f"internal error [{error.code}]: {error.message}", err=True)
        return 70
    except BrokenPipeError:
        # whoever read our output has left, as `head` does: nothing more is to be flushed there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # ours: its stack, and an exit code that says so
        import traceback

        traceback.print_exception(error)
        click.echo("internal error: this is a mistake in amba-run; please report it", err=True)
        return 70
