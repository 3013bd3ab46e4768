"""The one exception that means "the person at the keyboard can fix this"."""


class UserError(Exception):
    """A problem in what a person gave us: a file, a flag, a model that does not fit.

    The command line prints the message and ends with exit code 2, without a traceback.

    problem   one sentence, what is wrong
    where     `file:line, field "name"`, as exact as is known
    found     what stood there
    expected  what would have been right
    fix       what to do now, a flag or a command where there is one
    """

    def __init__(self, problem: str, *, where: str = "", found: str = "", expected: str = "", fix: str = ""):
        self.problem, self.where, self.found, self.expected, self.fix = problem, where, found, expected, fix
        lines = [problem]
        for label, text in (("where", where), ("found", found), ("expected", expected), ("what to do", fix)):
            if text:
                lines.append(f"  {label + ':':<12}{text}")
        super().__init__("\n".join(lines))
