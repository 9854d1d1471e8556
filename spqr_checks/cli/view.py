"""`spqr view`: pages and Allure's results of a folder, in a browser on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Serves a folder's pages to browsers on this machine only, until interrupted. Of a folder "
        "of Allure's results a report is made first, with the `allure` command."
    )
    said = "reports of a run, or a folder of such folders (default: spqr-report)"
    parser.add_argument("folder", nargs="?", type=Path, default=Path("spqr-report"), help=said)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: any free one")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.set_defaults(command=view)


def view(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for a folder without a page, or a port in use."""
    import webbrowser
    from tempfile import TemporaryDirectory

    from spqr_checks.cli.arguments import say
    from spqr_checks.reports.serving import pages, report_of, server
    from spqr_checks.user_files import path_of

    folder = path_of(options.folder)
    with TemporaryDirectory(prefix="spqr-allure-") as made:
        root = report_of(folder, Path(made)) or folder
        found = pages(root)
        with server(root, found, options.port) as serving:
            address = f"http://127.0.0.1:{serving.server_address[1]}/"
            say(f"{address}  ({', '.join(found)}; end with Ctrl-C)")
            if options.open:
                webbrowser.open(address)
            try:
                serving.serve_forever()
            except KeyboardInterrupt:
                return 0
    return 0
