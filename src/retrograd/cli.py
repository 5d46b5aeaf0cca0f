"""The commands, in the order of ``retrograd --help``. A new one is a module in `retrograd.commands` and a line here."""

from retrograd.commands.analyse import analyse
from retrograd.commands.compare import compare
from retrograd.commands.convert import convert
from retrograd.commands.demo.command import demo
from retrograd.commands.doctor import doctor
from retrograd.commands.evaluate import evaluate
from retrograd.commands.export import export
from retrograd.commands.extract import extract
from retrograd.commands.index import index
from retrograd.commands.lab import lab
from retrograd.commands.plan import plan
from retrograd.commands.predict import predict
from retrograd.commands.push import push
from retrograd.commands.recipes import recipes
from retrograd.commands.report import report
from retrograd.commands.search import search
from retrograd.commands.serve import serve
from retrograd.commands.show import show
from retrograd.commands.synthesise import synthesise
from retrograd.commands.tour.command import tour
from retrograd.commands.train import train
from retrograd.commands.validate import validate

__all__ = ["COMMANDS"]

COMMANDS = (
    tour,
    demo,
    recipes,
    show,
    synthesise,
    convert,
    validate,
    plan,
    train,
    evaluate,
    predict,
    search,
    serve,
    compare,
    report,
    analyse,
    extract,
    export,
    push,
    index,
    lab,
    doctor,
)
"""Functions, whose parameters are the options, and groups of commands (``typer.Typer``)."""
