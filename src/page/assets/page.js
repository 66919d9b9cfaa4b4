// What a page can't do by itself: times in the reader's zone, and parts that change while they are looked at.
// Everything else works without this script.
'use strict';

// Longest pause between two looks at a part, and the shortest, in milliseconds.
const PAUSE_MIN = 2000;
const PAUSE_MAX = 60000;

const zone = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: '2-digit', day: '2-digit',
  hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false,
});

function localTimes(root) {
  for (const time of root.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.textContent = zone.format(at);
  }
}

// Whether somebody is in the middle of something there: what they do must not vanish under their hands.
function isInUse(part) {
  const here = document.activeElement;
  if (here && here !== document.body && part.contains(here) && here.matches('input, select, textarea, button')) return true;
  for (const field of part.querySelectorAll('input, textarea')) {
    if (field.checked !== field.defaultChecked || field.value !== field.defaultValue) return true;
  }
  const chosen = window.getSelection();
  return Boolean(chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode));
}

// What was opened stays open: parts are made anew, so it is known by its place.
function openPlaces(part) {
  return [...part.querySelectorAll('details')].map((details) => details.open);
}

function replace(old, fresh) {
  const before = openPlaces(old);
  [...fresh.querySelectorAll('details')].forEach((details, place) => { if (before[place]) details.open = true; });
  const scrolled = [...old.querySelectorAll('.wide, pre')].map((it) => [it.scrollLeft, it.scrollTop]);
  localTimes(fresh);
  old.replaceWith(fresh);
  [...fresh.querySelectorAll('.wide, pre')].forEach((it, place) => {
    if (scrolled[place]) [it.scrollLeft, it.scrollTop] = scrolled[place];
  });
}

// Markup as it came from the server, by part, so that only what has changed is touched.
const served = new Map();

function remember(root) {
  for (const part of root.querySelectorAll('[data-part]')) served.set(part.dataset.part, part.outerHTML);
}

async function refresh() {
  const answer = await fetch(window.location.href, { headers: { accept: 'text/html' }, cache: 'no-store', redirect: 'error' });
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  for (const fresh of page.querySelectorAll('[data-part]')) {
    const name = fresh.dataset.part;
    const old = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
    if (!old || served.get(name) === fresh.outerHTML || isInUse(old)) continue;
    served.set(name, fresh.outerHTML);
    replace(old, document.adoptNode(fresh));
  }
  // What is live no more need not be listened to.
  return page.querySelector('main').hasAttribute('data-live');
}

function follow(main) {
  const pulse = document.querySelector('[data-pulse]');
  const say = (words) => { pulse.hidden = false; pulse.textContent = words; };
  let isDue = false;
  let isBusy = false;
  let pause = PAUSE_MIN;
  const stream = new EventSource(main.dataset.live);

  async function look() {
    if (isBusy || !isDue || document.hidden) return;
    isBusy = true;
    isDue = false;
    try {
      const goesOn = await refresh();
      pause = PAUSE_MIN;
      if (!goesOn) {
        stream.close();
        say('ended');
        return;
      }
      say('live');
    } catch {
      isDue = true;
      pause = Math.min(pause * 2, PAUSE_MAX);
      say('not reached, trying again');
    }
    window.setTimeout(() => { isBusy = false; look(); }, pause);
  }

  const hear = () => { isDue = true; look(); };
  stream.onopen = () => say('live');
  stream.onerror = () => say('not reached, trying again');
  stream.onmessage = hear;
  for (const name of ['counters', 'entry', 'saga', 'left', 'more']) stream.addEventListener(name, hear);
  document.addEventListener('visibilitychange', look);
}

remember(document);
localTimes(document);
const main = document.querySelector('main[data-live]');
if (main && window.EventSource) follow(main);
