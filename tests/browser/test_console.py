"""What people do in the console, in a real browser, against a running pipeline."""

import re
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Newcomer
from tests.browser.people import Customer, Visitor
from tests.waiting import wait_for

_SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


async def _ended(page: Page, job: str, status: str) -> None:
    row = page.locator("tr", has=page.locator(f"a[href$='{job}']"))
    await expect(row.locator(".status")).to_have_text(status)


async def test_a_job_appears_and_completes_without_a_reload(operator: Visitor, customer: Customer) -> None:
    """The list is live: nobody touches the page, and it goes from nothing to completed."""
    await operator.open("/jobs")
    await operator.page.evaluate("window.untouched = true")
    job = await customer.ask("Something quiet")
    await _ended(operator.page, job, "completed")
    assert await operator.page.evaluate("window.untouched")


async def test_a_page_of_a_job_follows_it_to_its_activities(operator: Visitor, customer: Customer) -> None:
    """The timeline grows, and the activities appear where the customer's wish stands."""
    job = await customer.ask("Something with paper")
    await operator.open("/jobs")
    await operator.page.locator(f"a[href$='{job}']").click()
    await expect(operator.page.get_by_role("heading", name="Activities")).to_be_visible()
    await expect(operator.page.locator("svg.timeline .mark.call")).to_have_count(1)
    await operator.page.get_by_role("link", name="Every event as JSON").click()
    await expect(operator.page.locator("details")).to_have_count(3)


async def test_a_filter_is_an_address_that_a_colleague_opens(
    operator: Visitor, newcomer: Newcomer, customer: Customer
) -> None:
    """What was filtered stands in the address; somebody else who opens it signs in and sees the same."""
    word = f"word{uuid4().hex[:8]}"
    job, other = await customer.ask(f"Something with {word}"), await customer.ask("Something else")
    await operator.open("/jobs")
    await _ended(operator.page, other, "completed")
    await operator.page.keyboard.press("/")
    await operator.page.keyboard.type(word)
    await operator.page.keyboard.press("Enter")
    await operator.page.wait_for_url(re.compile(f"words={word}"))
    await expect(operator.page.locator("tr[data-row]")).to_have_count(1)
    colleague = await newcomer()
    await colleague.page.goto(operator.page.url)
    await colleague.page.get_by_label("Bearer token").fill(colleague.token("operator"))
    await colleague.page.get_by_role("button", name="Sign in").click()
    await colleague.page.wait_for_url(re.compile(f"words={word}"))
    await expect(colleague.page.locator("tr[data-row]")).to_have_count(1)
    await expect(colleague.page.locator(f"a[href$='{job}']")).to_be_visible()


async def test_several_jobs_are_cancelled_with_the_effects_shown_first(operator: Visitor, customer: Customer) -> None:
    """Two under way are chosen; the page says what would follow and asks why, and they are cancelled."""
    await customer.have("slow", "Slow boats")
    jobs = [await customer.ask("Slow boats") for _ in range(2)]
    await operator.open("/jobs?status=processing")
    for job in jobs:
        await operator.page.get_by_label(f"Choose {job}").check()
    await operator.page.get_by_role("button", name="Cancel the chosen").click()
    await expect(operator.page.locator("main")).to_contain_text("2 would be cancelled")
    await operator.page.get_by_label("Why").fill("asked for by mistake")
    await operator.page.get_by_role("button", name="Cancel 2 jobs").click()
    await expect(operator.page.locator("td", has_text="cancelled, run 1")).to_have_count(2)
    await operator.open(f"/jobs/{jobs[0]}")
    await expect(operator.page.locator("main .status").first).to_have_text("cancelled")


async def test_all_jobs_that_match_are_cancelled_by_a_plan(operator: Visitor, customer: Customer) -> None:
    """The set is frozen with its digest and its effects are shown; one that is asked for afterwards goes on."""
    word = f"boats{uuid4().hex[:8]}"
    await customer.have("slow", word)
    jobs = [await customer.ask(f"Slow {word}") for _ in range(3)]
    await operator.open(f"/jobs?words={word}")
    await expect(operator.page.locator("tr[data-row]")).to_have_count(3)
    await operator.page.get_by_role("button", name="Cancel all that match").click()
    await operator.page.wait_for_url(re.compile("/cancels/"))
    await expect(operator.page.locator("main")).to_contain_text("3 jobs")
    await expect(operator.page.locator("main")).to_contain_text("SHA-256")
    late = await customer.ask(f"Slow {word}")
    await operator.page.get_by_label("Why").fill("the offsite is off")
    await operator.page.get_by_role("button", name="Cancel 3 jobs").click()
    await expect(operator.page.locator("main .status").first).to_have_text("finished")
    for job in jobs:
        await operator.open(f"/jobs/{job}")
        await expect(operator.page.locator("main .status").first).to_have_text("cancelled")
    await operator.open(f"/jobs/{late}")
    await expect(operator.page.locator("main .status").first).not_to_have_text("cancelled")


async def test_failed_jobs_are_planned_applied_and_complete(operator: Visitor, customer: Customer) -> None:
    """Ten jobs fail; a plan of their replay says what it costs, is applied, and they complete."""
    wish = f"puzzles {uuid4().hex[:8]}"
    await customer.have("refusal", wish)
    jobs = [await customer.ask(f"{wish} {number}") for number in range(10)]
    await operator.open("/failed")
    await wait_for(lambda: _failed_are(operator, jobs), deadline_s=60, what="ten failed events")
    await customer.have_all_answered()
    await operator.page.get_by_role("button", name="Plan the replay").click()
    await operator.page.wait_for_url(re.compile("/replay/"))
    await expect(operator.page.locator("main")).to_contain_text("jobs start again")
    await operator.page.get_by_label("Events a second").fill("100")
    await operator.page.get_by_role("button", name=re.compile("Apply: send")).click()
    await expect(operator.page.locator("main .status").first).to_have_text("finished")
    for job in jobs:
        await operator.open(f"/jobs/{job}")
        await expect(operator.page.locator("main .status").first).to_have_text("completed")


async def _failed_are(operator: Visitor, jobs: list[str]) -> bool:
    shown = await operator.page.locator("#live a.id").all_inner_texts()
    return set(jobs) <= set(shown)


async def test_chosen_failed_events_are_discarded_with_the_effects_shown_first(
    operator: Visitor, customer: Customer
) -> None:
    """Two of three are chosen; the plan says what would follow, and they alone are set aside."""
    wish = f"ferrets {uuid4().hex[:8]}"
    await customer.have("refusal", wish)
    jobs = [await customer.ask(f"{wish} {number}") for number in range(3)]
    await operator.open("/failed")
    await wait_for(lambda: _failed_are(operator, jobs), deadline_s=60, what="three failed events")
    for job in jobs[:2]:
        row = operator.page.locator("tr[data-row]", has=operator.page.locator(f"a[href$='{job}']"))
        await row.get_by_role("checkbox").check()
    await operator.page.get_by_role("button", name="Discard the chosen").click()
    await operator.page.wait_for_url(re.compile("/discards/"))
    await expect(operator.page.locator("main")).to_contain_text("2 failed events about 2 jobs")
    await operator.page.get_by_label("Why").fill("asked for by mistake")
    await operator.page.get_by_role("button", name="Discard 2 failed events").click()
    await expect(operator.page.locator("main .status").first).to_have_text("finished")
    await operator.open("/failed?state=open")
    shown = await operator.page.locator("#live a.id").all_inner_texts()
    assert (jobs[2] in shown, set(jobs[:2]) & set(shown)) == (True, set())


async def test_a_fault_leads_to_what_to_do_about_it(operator: Visitor) -> None:
    """A link of the overview opens the operators' page at its section."""
    await operator.open("/")
    await operator.page.get_by_role("link", name="What to do: The backlog grows").first.click()
    await operator.page.wait_for_url(re.compile("/operating#the-backlog-grows$"))
    await expect(operator.page.get_by_role("heading", name="The backlog grows")).to_be_in_viewport()


async def test_texts_of_customers_and_models_stay_texts(operator: Visitor, customer: Customer) -> None:
    """Script in a wish, and in the activities that quote it, is shown as it was written and runs nowhere."""
    job = await customer.ask(f"Paper boats {_SCRIPT}")
    for path in ("/jobs", f"/jobs/{job}", f"/jobs/{job}/events"):
        await operator.open(path)
        if path == "/jobs":
            await _ended(operator.page, job, "completed")
        title = await operator.page.title()
        assert title.endswith("TEAMFIT console")
        assert await operator.page.locator("main script, main img").count() == 0
    await operator.open(f"/jobs/{job}")
    await expect(operator.page.locator("main")).to_contain_text(_SCRIPT)


async def test_a_stage_is_paused_and_resumed(operator: Visitor, customer: Customer) -> None:
    """What follows is said first; a job waits meanwhile and says so; resumed, it completes. Both stand in the log."""
    await operator.open("/workers")
    page = operator.page
    card = page.locator("form.card", has=page.get_by_role("heading", name="Pause a stage"))
    await card.get_by_label("Stage").select_option("generation")
    await card.get_by_label("Why").fill("a test of the console")
    await card.get_by_role("button", name="Pause …").click()
    await expect(page.locator("main")).to_contain_text("runs in line")
    assert await operator.complaints() == []
    await page.get_by_role("button", name="Do it").click()
    await page.wait_for_url(re.compile("/workers$"))
    try:
        await expect(page.locator("#live")).to_contain_text("a test of the console", timeout=30_000)
        await expect(page.locator("#live")).to_contain_text("paused", timeout=30_000)
        assert await operator.complaints() == []
        job = await customer.ask()
        await wait_for(lambda: _waits_for(customer, job, "pause"), deadline_s=60, what="the job to wait for the pause")
    finally:
        await operator.open("/workers")
        await page.get_by_role("button", name="Resume generation").click()
    await operator.open("/jobs")
    await _ended(page, job, "completed")
    await operator.open("/actions?target=stage+generation")
    await expect(page.locator("#live tbody tr").first).to_contain_text("control.pause.end")


async def test_a_price_is_set_and_a_plan_is_given_a_share(operator: Visitor) -> None:
    """Each says first what follows; then the price and the share stand on their pages, and both in the log."""
    page, model = operator.page, f"model-{uuid4().hex[:8]}"
    await operator.open("/llm")
    card = page.locator("form.card", has=page.get_by_role("heading", name="Set a price"))
    await card.get_by_label("Model").fill(model)
    await card.get_by_label("A million tokens in").fill("0.15")
    await card.get_by_label("A million tokens out").fill("0.60")
    await card.get_by_role("button", name="Set …").click()
    await expect(page.locator("main")).to_contain_text("Calls on record that get their price")
    assert await operator.complaints() == []
    await page.get_by_role("button", name="Set the price").click()
    await page.wait_for_url(re.compile("/llm$"))
    await expect(page.locator("#live tr", has_text=model)).to_contain_text("0.60")
    await operator.open("/organizations")
    await page.get_by_role("link", name="Shares of plans").click()
    card = page.locator("form.card", has=page.get_by_role("heading", name="Set a share"))
    await card.get_by_label("Plan").fill(model)
    await card.get_by_label("Weight").fill("2.5")
    await card.get_by_role("button", name="Set …").click()
    await expect(page.locator("tr.current")).to_contain_text("2.5")
    assert await operator.complaints() == []
    await page.get_by_role("button", name="Do it").click()
    await page.wait_for_url(re.compile("/organizations/plans$"))
    await page.get_by_label("Plan").last.select_option(model)
    await page.get_by_role("button", name="Forget …").click()
    await expect(page.locator("main")).to_contain_text("weight 1 and no limits")
    await page.get_by_role("button", name="Do it").click()
    await page.wait_for_url(re.compile("/organizations/plans$"))
    await expect(page.locator("#live")).not_to_contain_text(model)
    await operator.open("/actions")
    for action in ("llm.price", "plan.set", "plan.forget"):
        await expect(page.locator("#live tr", has_text=model).filter(has_text=action)).to_have_count(1)


async def test_an_organization_is_added_with_a_team_and_its_texts_are_erased(operator: Visitor) -> None:
    """From the list to its page; the erasure says first that there is nothing yet."""
    page, name = operator.page, f"new-{uuid4().hex[:8]}"
    await operator.open("/organizations")
    card = page.locator("form.card", has=page.get_by_role("heading", name="Add an organization"))
    await card.get_by_label("ID, as requests name it").fill(name)
    await card.get_by_role("button", name="Add").click()
    await page.wait_for_url(re.compile(f"/organization.id={name}"))
    card = page.locator("form.card", has=page.get_by_role("heading", name="Add a team"))
    await card.get_by_label("ID, as requests name it").fill(f"{name}-core")
    await card.get_by_role("button", name="Add").click()
    await expect(page.locator("#live")).to_contain_text(f"{name}-core")
    await page.get_by_role("button", name="Erase …").click()
    await expect(page.locator("main")).to_contain_text("There is nothing to erase.")
    assert await operator.complaints() == []


async def test_no_column_of_the_deliveries_is_cut(operator: Visitor, customer: Customer) -> None:
    """At 1,280 pixels all of them are seen, of a job's event with a long answer too; the answer was beyond the edge."""
    page = operator.page
    await operator.open("/webhooks")
    await page.get_by_label("Organization").last.fill("birch")
    await page.get_by_label("URL").fill(f"https://{uuid4().hex}.example/a/path/that/does/not/exist")
    await page.get_by_role("button", name="Add").click()
    await page.get_by_role("link", name="To the endpoint").click()
    await customer.ask("Something to be told of")
    row = page.locator("#live tbody tr[data-row]").first
    await expect(row.locator("td").last).not_to_be_empty(timeout=60_000)
    wide = "all => all.map(one => one.scrollWidth - one.clientWidth)"
    assert await page.locator("#live .wide").evaluate_all(wide) == [0]
    await page.get_by_role("button", name="Remove for good").click()


async def _waits_for(customer: Customer, job: str, gate: str) -> bool:
    return ((await customer.job(job)).get("waiting_for") or {}).get("gate") == gate


async def test_a_viewer_looks_and_has_no_buttons(newcomer: Newcomer, customer: Customer) -> None:
    """No form but the way out, nobody's texts, and the same jobs."""
    job = await customer.ask("Something private")
    viewer = await newcomer()
    await viewer.sign_in("viewer")
    pages = ("/", "/jobs", "/failed", "/organization?id=birch", "/streams", "/workers", "/webhooks", "/actions")
    more = ("/organizations", "/organizations/plans", "/llm", "/schedule")
    for path in (*pages, *more, f"/jobs/{job}"):
        await viewer.open(path)
        assert await viewer.page.locator("form[method=post]").count() == 1, path
        await expect(viewer.page.get_by_role("button", name="Sign out")).to_be_visible()
        assert "Something private" not in await viewer.page.content()


async def test_a_session_that_ends_leads_every_page_to_the_sign_in(operator: Visitor) -> None:
    """Signing out in one tab ends the others too, without a touch."""
    await operator.open("/jobs")
    other = await operator.page.context.new_page()
    await other.goto(operator.console + "/")
    await other.get_by_role("button", name="Sign out").click()
    await other.wait_for_url(re.compile("/sign-in"))
    await operator.page.wait_for_url(re.compile("/sign-in"), timeout=30_000)


async def test_the_keyboard_is_enough(operator: Visitor, customer: Customer) -> None:
    """`j` and `k` move between rows, Enter opens one."""
    jobs = [await customer.ask() for _ in range(2)]
    await operator.open("/jobs")
    await _ended(operator.page, jobs[1], "completed")
    await operator.page.keyboard.press("j")
    await operator.page.keyboard.press("j")
    await operator.page.keyboard.press("k")
    await expect(operator.page.locator("tr.current")).to_have_count(1)
    await operator.page.keyboard.press("Enter")
    await operator.page.wait_for_url(re.compile(jobs[1]))


async def test_it_works_without_javascript(newcomer: Newcomer, customer: Customer) -> None:
    """Everything but the live parts: sign in, filter, open, cancel."""
    await customer.have("slow", "Slow boats")
    job = await customer.ask("Slow boats")
    visitor = await newcomer(javascript=False)
    await visitor.sign_in("operator")
    await wait_for(lambda: _is_listed(visitor, job), what="the job to be listed")
    await visitor.page.locator(f"a[href$='{job}']").click()
    await visitor.page.get_by_role("button", name="Cancel …").click()
    await visitor.page.get_by_label("Why").fill("a test")
    await visitor.page.get_by_role("button", name="Cancel 1 job").click()
    await expect(visitor.page.locator("main")).to_contain_text("cancelled, run 1")
    assert "not live" in await _state(visitor)


async def _is_listed(visitor: Visitor, job: str) -> bool:
    await visitor.open("/jobs?status=processing")
    return await visitor.page.locator(f"a[href$='{job}']").count() == 1


async def _state(visitor: Visitor) -> str:
    await visitor.open("/jobs")
    return await visitor.page.locator("#state").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_page(newcomer: Newcomer, customer: Customer, scheme: str) -> None:
    """Labels, landmarks, contrast: of every page, for operators, in both schemes, the refusals included."""
    visitor = await newcomer(scheme=scheme)
    await visitor.open("/sign-in")
    assert await visitor.complaints() == []
    await visitor.sign_in("operator")
    await customer.have("refusal", "axe has something to read")
    job = await customer.ask("axe has something to read")
    await visitor.open("/failed")
    await expect(visitor.page.locator(f"a[href$='{job}']")).to_be_visible()
    event = str(await visitor.page.locator("tr[data-row] a").first.get_attribute("href")).rpartition("/console")[2]
    await visitor.page.get_by_role("button", name="Plan the replay").click()
    await visitor.page.wait_for_url(re.compile("/replay/"))
    plan = visitor.page.url.partition("/console")[2]
    await visitor.open("/failed")
    await visitor.page.get_by_role("button", name="Discard the open ones that match").click()
    await visitor.page.wait_for_url(re.compile("/discards/"))
    discard = visitor.page.url.partition("/console")[2]
    await visitor.open("/webhooks")
    await visitor.page.get_by_label("Organization").last.fill("birch")
    await visitor.page.get_by_label("URL").fill("https://birch.example/hooks")
    await visitor.page.get_by_role("button", name="Add").click()
    assert await visitor.complaints() == []
    await visitor.page.get_by_role("link", name="To the endpoint").click()
    endpoint = visitor.page.url.partition("/console")[2]
    pages = ("/", "/jobs", f"/jobs/{job}", f"/jobs/{job}/events", "/failed", event, "/replay", plan, "/organizations")
    others = ("/organization?id=birch", "/streams", "/workers", "/actions", f"/jobs/{uuid4()}", "/nowhere")
    more = ("/failed/groups", "/discards", discard, "/cancels", "/schedule", "/webhooks", endpoint, "/operating")
    new = ("/llm", "/organizations/plans", "/streams/entries?topic=job-events")
    for path in (*pages, *others, *more, *new):
        await visitor.open(path)
        assert await visitor.complaints() == [], path


async def test_forms_and_notices_please_axe_and_no_page_is_wider_than_a_phone(
    newcomer: Newcomer, customer: Customer
) -> None:
    """Axe finds nothing between a button and its effect, in an empty list, and on a screen of 360 pixels."""
    visitor = await newcomer(scheme="dark")
    await visitor.sign_in("operator")
    job = await customer.ask("A short walk")
    await visitor.open("/jobs")
    await _ended(visitor.page, job, "completed")
    pages = ("/", "/jobs", "/jobs?organization_id=brich", f"/jobs/{job}", f"/jobs/{job}/events", "/failed", "/replay")
    more = (
        "/organizations",
        "/organization?id=birch",
        "/streams",
        "/workers",
        "/actions",
        "/failed/groups",
        "/cancels",
        "/llm",
        "/organizations/plans",
    )
    others = ("/discards", "/schedule", "/webhooks", "/operating", "/streams/entries?topic=job-events", "/nowhere")
    await visitor.page.set_viewport_size({"width": 360, "height": 740})
    for path in (*pages, *more, *others, "/nowhere"):
        await visitor.open(path)
        wide = await visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (path, wide)
    await visitor.open("/jobs?organization_id=brich")
    await expect(visitor.page.locator(".notice")).to_have_text("organization brich: not known; did you mean `birch`?")
    assert await visitor.complaints() == []
    await visitor.open("/workers")
    await visitor.page.locator("form", has_text="Pause").get_by_label("Why").first.fill("a look")
    await visitor.page.locator("form", has_text="Pause").get_by_role("button").first.click()
    await expect(visitor.page.locator("main")).to_contain_text("runs in line")
    assert await visitor.complaints() == []
    await visitor.open("/jobs")
    await visitor.page.locator("input[name=chosen]").first.check()
    await visitor.page.get_by_role("button", name="Cancel the chosen").click()
    assert await visitor.complaints() == []
    await visitor.open("/jobs")
    await visitor.page.get_by_role("button", name="Cancel all that match").click()
    await visitor.page.wait_for_url(re.compile("/cancels/"))
    assert await visitor.complaints() == []


async def test_the_navigation_has_one_line_on_a_small_laptop(newcomer: Newcomer) -> None:
    """Eleven names, the operator's and the way out stand side by side at 1,280 pixels; they took two lines."""
    visitor = await newcomer()
    await visitor.sign_in("operator")
    await visitor.open("/failed")
    tops = await visitor.page.locator(".bar nav a").evaluate_all("all => all.map(one => one.offsetTop)")
    assert (len(tops), len(set(tops))) == (11, 1)
    assert await visitor.page.locator(".bar").evaluate("bar => bar.offsetHeight") < 70
    assert await visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


async def test_a_tab_that_is_hidden_asks_for_nothing(operator: Visitor, customer: Customer) -> None:
    """Its stream is closed, and what happens meanwhile is there when it is looked at again."""
    asked: list[str] = []
    await operator.open("/jobs")
    await expect(operator.page.locator("#state")).to_have_text("live")
    operator.page.on("request", lambda request: asked.append(request.url))
    await _look(operator, hidden=True)
    await expect(operator.page.locator("#state")).to_have_text("not live")
    job = await customer.ask("While nobody looks")
    await wait_for(lambda: _is_done(customer, job), what="the job to complete")
    assert asked == []
    await expect(operator.page.locator(f"a[href$='{job}']")).to_have_count(0)
    await _look(operator, hidden=False)
    await _ended(operator.page, job, "completed")
    assert [url for url in asked if "/live/jobs" in url] == asked


async def _is_done(customer: Customer, job: str) -> bool:
    return (await customer.job(job)).get("status") == "completed"


async def _look(visitor: Visitor, *, hidden: bool) -> None:
    """Have the browser tell the page that it is hidden, or is not, as it tells one whose tab is changed."""
    await visitor.page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_the_console_speaks_to_nobody_else(operator: Visitor, customer: Customer) -> None:
    """Every request of every page goes to the console itself, and the browser complains of nothing."""
    asked: list[str] = []
    said: list[str] = []
    operator.page.on("request", lambda request: asked.append(request.url))
    operator.page.on("console", lambda message: said.append(message.text))
    job = await customer.ask()
    for path in ("/", "/jobs", f"/jobs/{job}/events", "/failed", "/organizations", "/streams", "/workers", "/actions"):
        await operator.open(path)
    assert asked
    assert [url for url in asked if not url.startswith(operator.console)] == []
    assert said == []


async def test_the_overview_counts_what_a_task_that_is_run_now_has_found(operator: Visitor, customer: Customer) -> None:
    """A job completes; the task that counts is run from its page, and the live chart has it."""
    job = await customer.ask("Something to be counted")
    await operator.open("/jobs")
    await _ended(operator.page, job, "completed")
    await operator.open("/schedule")
    await operator.page.locator("select[name=task]").select_option("counts.again")
    await operator.page.get_by_role("button", name="Run").click()
    row = operator.page.locator("#live tr", has=operator.page.get_by_role("rowheader", name="counts.again"))
    await expect(row).to_contain_text("done", timeout=60_000)
    assert await operator.complaints() == []
    await operator.open("/")
    await expect(operator.page.locator("svg.bars rect").first).to_be_attached(timeout=60_000)
    await expect(operator.page.locator(".mood")).to_contain_text(re.compile("Idle|At work"))
    assert await operator.complaints() == []
