"""What is being waited for, drawn from the picture of /status."""

from agent.domain import events as facts
from agent.domain.model import Condition, ConditionStatus, PlannedStep
from agent.status.waiting import waiting
from tests.kit.scenes import Stage, pair


def waits(stage: Stage) -> list[tuple[str | None, str]]:
    return [(wait["app"], wait["what"]) for wait in waiting(stage.board.snapshot())]


def test_nothing_is_waited_for_when_all_is_well() -> None:
    stage = Stage()
    stage.deploy("web", "1.4.0")
    assert waits(stage) == []


def test_a_pause_waits_for_its_resume() -> None:
    stage = Stage()
    stage.tell(facts.PauseChanged("release freeze", "alice"))
    (wait,) = waiting(stage.board.snapshot())
    assert (wait["app"], wait["what"], wait["why"]) == (None, "pause", "release freeze")
    assert wait["since"]
    assert wait["until"] == "emptybox resume"


def test_a_run_is_told_with_the_step_it_is_at() -> None:
    stage = Stage()
    steps = (PlannedStep("fetch", "fetch", "new"), PlannedStep("start", "start", "new", ("fetch",)))
    stage.tell(
        facts.AppWanted("web", pair("2.0"), "newer"),
        facts.RunStarted("run-1", "sync-1", "web", "2.0 is wanted", steps),
        facts.StepStarted("run-1", "web", "fetch", "fetch", 3),
    )
    told = {wait["what"]: wait for wait in waiting(stage.board.snapshot())}
    assert told["run"]["why"] == "run-1: 2.0 is wanted"
    assert told["step"]["why"] == "fetch runs, attempt 3"
    assert told["step"]["since"]


def test_conditions_that_end_by_themselves_or_by_an_operator_say_so() -> None:
    stage = Stage()
    stage.tell(
        facts.AppWanted("web", pair("2.0"), "newer"),
        facts.ConditionChanged("", Condition("SourceReachable", ConditionStatus.FALSE, "GitTimeout", "slow")),
        facts.ConditionChanged("web", Condition("Quarantined", ConditionStatus.TRUE, "ProbeFailed", "500")),
        facts.ConditionChanged("web", Condition("Healthy", ConditionStatus.TRUE, "Probed", "fine")),
    )
    told = {wait["what"]: wait for wait in waiting(stage.board.snapshot())}
    assert set(told) == {"SourceReachable", "Quarantined"}
    assert told["Quarantined"]["until"] == "a changed specification, or: emptybox retry web"
    assert told["SourceReachable"]["why"] == "GitTimeout: slow"
