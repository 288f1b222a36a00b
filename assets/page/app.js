// The page of a run: what it does, what it learns, what its policies say. Asks the same routes as any
// program (docs/serve.md), and holds nothing that they do not tell.
'use strict';

const $ = (id) => document.getElementById(id);
const view = $('view');

/** An element with attributes and children; texts are texts, never markup. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return made;
}

// What is asked of the run.

const token = $('token');
token.value = sessionStorage.getItem('token') || '';
token.addEventListener('change', () => sessionStorage.setItem('token', token.value.trim()));

function headers(extra) {
  const all = { ...extra };
  if (token.value.trim()) all.Authorization = `Bearer ${token.value.trim()}`;
  return all;
}

/** Asks; what the run refuses is an error with its words. */
async function ask(path, body) {
  const options = body === undefined ? { headers: headers() } : {
    method: 'POST', headers: headers({ 'Content-Type': 'application/json' }), body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Error(said && said.error ? `${said.error.code}: ${said.error.message}` : `${path}: ${response.status}`);
  }
  return response;
}
const json = async (path, body) => (await ask(path, body)).json();
const command = (body) => json('api/commands', body);

function trouble(error) {
  const text = error ? error.message || String(error) : '';
  $('trouble').textContent = text;
  $('trouble').hidden = !text;
}

/** A button that does something, says when it fails, and cannot be pressed twice meanwhile. */
function button(label, act, attributes) {
  const made = el('button', { type: 'button', ...attributes }, label);
  made.addEventListener('click', async () => {
    made.disabled = true;
    try {
      trouble(null);
      await act();
    } catch (error) {
      trouble(error);
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

function table(heads, rows, caption) {
  return el('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': caption },
    el('table', {}, el('caption', { class: 'note' }, caption),
      el('thead', {}, el('tr', {}, heads.map((head) => el('th', { scope: 'col' }, head)))),
      el('tbody', {}, rows.map((cells) => el('tr', {}, cells.map((cell) =>
        el('td', { class: typeof cell === 'number' ? 'number' : typeof cell === 'string' && cell.length > 40 ? 'words' : null }, cell)))))));
}

// How things are said.

const ACTIVITIES = { working: 'works', paused: 'pauses', finished: 'has done all its iterations' };

function activity(status) {
  const at = status.activity;
  if (at.is === 'waiting_for_prompts') return `waits for prompts: ${at.waiting} of ${at.wanted} are there`;
  return ACTIVITIES[at.is] || at.is;
}

function headline(status) {
  const acts = status.policy ? `${status.policy} acts` : 'no policy acts yet';
  $('headline').textContent =
    `The run ${activity(status)}${status.model ? ` (${status.model})` : ''}; ${acts}; ` +
    `${status.finished} of ${Math.max(status.wanted, status.finished)} iterations are over`;
}

const percent = (share) => (share == null ? '' : `${(100 * share).toFixed(1)} %`);
const number = (value, digits = 2) => (value == null ? '' : Number(value).toFixed(digits));

function interval(estimate) {
  if (!estimate || estimate.mean == null) return '';
  const ends = estimate.low != null ? ` [${percent(estimate.low)}, ${percent(estimate.high)}]` : '';
  return percent(estimate.mean) + ends;
}

/** Who won on the held-out prompts, as the one that the gate believes says. */
function against(evaluation) {
  const all = (evaluation.head_to_head || []).filter((one) => one.opponent === 'previous');
  const one = all.find((other) => other.referee === evaluation.gate_referee) || all[0];
  return one ? `${one.wins}/${one.ties}/${one.losses}, ${interval(one.win_rate)}` : '';
}

function bar(done, total, label) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  for (const [name, value] of Object.entries({
    class: 'bar', viewBox: '0 0 100 4', preserveAspectRatio: 'none', role: 'img', 'aria-label': label,
  })) made.setAttribute(name, value);
  for (const [name, width] of [['whole', 100], ['done', total ? (100 * done) / total : 0]]) {
    const rect = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    rect.setAttribute('class', name);
    rect.setAttribute('width', width);
    rect.setAttribute('height', 4);
    made.append(rect);
  }
  return made;
}

// Views. Each draws itself, and may say how to draw anew what changed.

const views = {
  async now() {
    const body = el('div', {});
    const draw = (status) => {
      const stages = Object.entries(status.stages || {}).map(([name, state]) => {
        const [done, total] = (status.progress || {})[name] || [0, 0];
        const says = state.halted || state.lost || state.waiting;
        return [name, state.busy ? 'computes' : 'rests',
          total ? el('span', {}, bar(done, total, `${done} of ${total}`), ` ${done}/${total}`) : '',
          state.recorded, state.failed ? el('span', { class: 'fault' }, state.failed) : 0,
          says ? el('span', { class: 'fault' }, says) : ''];
      });
      stages.sort((a, b) => (a[5] ? 0 : 1) - (b[5] ? 0 : 1));
      const facts = [
        ['Computes on', status.device], ['Acts', status.policy + (status.pinned ? ', pinned' : '')],
        ['Makes', status.model], ['Prompts waiting', status.prompts_waiting],
        ['Tokens a second', status.tokens_per_second == null ? '' : number(status.tokens_per_second, 0)],
        ['Records of the log', status.records],
        ['Log', status.log && status.log.state === 'sound' ? 'takes events' : JSON.stringify(status.log)],
      ];
      body.replaceChildren(
        el('div', { class: 'row' },
          button('Pause', () => command({ command: 'pause' }).then(refresh)),
          button('Go on', () => command({ command: 'resume' }).then(refresh)),
          button('One iteration more', () => command({ command: 'raise_iterations',
            total: Math.max(status.wanted, status.finished) + 1 }).then(refresh))),
        el('dl', {}, facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value ?? '')])),
        el('h2', {}, 'Stages'),
        stages.length ? table(['Stage', 'Now', 'This iteration', 'Tasks done', 'Failed', 'Says'], stages,
          'Stages, those that need somebody first') : el('p', {}, 'No process works on the run.'));
    };
    draw(await json('api/status'));
    return { body, status: draw };
  },

  async learning() {
    const report = await json('api/report');
    const verdict = report.verdict || {};
    const rows = (report.iterations || []).map((row) => {
      const evaluation = row.evaluation || {};
      return [`M${row.iteration}`, row.kind, row.outcome && (row.outcome.outcome || row.outcome.kind || ''),
        against(evaluation), row.pairs, row.steps, row.seconds == null ? '' : Math.round(row.seconds),
        (row.alarms || []).map((alarm) => alarm.kind).join(', ')];
    });
    const body = el('div', {},
      el('p', { class: 'verdict' }, verdict.sentence || ''),
      (verdict.beside || []).map((line) => el('p', {}, line)),
      el('ul', { class: 'reasons' }, (verdict.reasons || []).map((reason) =>
        el('li', { class: reason.speaks }, el('b', {}, reason.title), reason.text))),
      el('h2', {}, 'Iterations'),
      rows.length ? table(['Model', 'By', 'End', 'Won/tied/lost against the one before', 'Pairs', 'Steps', 'Seconds', 'Alarms'],
        rows, 'What each iteration came to') : el('p', {}, 'No iteration is over yet.'));
    const plots = el('div', { class: 'plots' });
    body.append(plots);
    const { figures } = await json('api/figures');
    // Made by the run itself, and escaped there.
    plots.innerHTML = figures.join('');
    return { body };
  },

  async chat() {
    const models = (await json('v1/models')).data.map((model) => model.id);
    const pick = (label, chosen, none) => {
      const select = el('select', { id: `pick-${label}` }, none ? el('option', { value: '' }, 'nobody') : null,
        models.map((id) => el('option', { value: id, selected: id === chosen }, id)));
      return [el('label', { for: `pick-${label}` }, label), select];
    };
    const one = pick('Left', 'latest', false);
    const two = pick('Right', '', true);
    const turns = el('div', { 'aria-live': 'polite' });
    const input = el('textarea', { id: 'say', placeholder: 'Say something', 'aria-label': 'Say something' });
    let history = [[], []];
    const send = async () => {
      const said = input.value.trim();
      if (!said) return;
      input.value = '';
      const names = [one[1].value, two[1].value].filter((name) => name);
      turns.append(el('p', { class: 'turn mine' }, said));
      const places = names.map((name) => el('div', { class: 'answer' }, el('h4', {}, name), el('p', { class: 'said' })));
      const two_ = el('div', { class: 'two' }, places);
      turns.append(two_);
      const answered = await Promise.all(names.map((name, at) => {
        history[at].push({ role: 'user', content: said });
        return answer(name, history[at], places[at].lastChild);
      }));
      answered.forEach((given, at) => history[at].push({ role: 'assistant', content: given.text }));
      two_.after(voting(answered));
    };
    input.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey) {
        event.preventDefault();
        ask_.click();
      }
    });
    const ask_ = button('Send', send);
    const body = el('div', {}, el('div', { class: 'row' }, one, two,
      button('Begin anew', async () => { history = [[], []]; turns.replaceChildren(); })),
    turns, input, el('div', { class: 'row' }, ask_,
      el('span', { class: 'note' }, 'Enter sends, Shift and Enter begin a new line.')));
    return { body };
  },

  async votes() {
    const told = await json('api/votes?limit=1000');
    const counts = Object.entries(told.counts).map(([kind, count]) => `${count} ${kind}`).join(', ');
    const rows = told.votes.slice().reverse().map((vote) => [
      new Date(vote.at_ms).toLocaleString(), vote.verdict.kind, vote.answer.model || '',
      vote.messages[vote.messages.length - 1].content, vote.answer.text,
      vote.verdict.than ? `than: ${vote.verdict.than.text}` : vote.verdict.text || vote.comment || '']);
    return { body: el('div', {}, el('p', {}, `Votes: ${counts}.`),
      rows.length ? table(['When', 'Vote', 'Of', 'Asked', 'Answered', 'And'], rows, 'Votes, the newest first')
        : el('p', {}, 'Nobody has voted yet. Vote under answers in Chat, or by POST v1/feedback.')) };
  },

  async rubrics() {
    const told = await json('api/rubrics');
    const rows = (told.rubrics || []).map((rubric) => [
      `${rubric.name}@${rubric.version}`,
      rubric.weight != null ? `judges${rubric.on_trial ? ', on trial' : ''}` : rubric.shadow ? 'judges beside' : '',
      rubric.tags.join(', ') || 'all prompts', rubric.rubric.slice(0, 12),
      rubric.failing || rubric.retired ? el('span', { class: 'fault' }, rubric.failing || `rolled back: ${rubric.retired}`) : '',
      el('div', { class: 'row' },
        button('Let it judge from now on', () => activate(rubric, 'immediately')),
        button('From the next iteration on', () => activate(rubric, 'next_iteration')))]);
    const file = el('input', { type: 'file', accept: '.wasm', id: 'component' });
    const upload = button('Install', async () => {
      if (!file.files.length) throw new Error('choose a component first');
      const bytes = new Uint8Array(await file.files[0].arrayBuffer());
      let text = '';
      for (const byte of bytes) text += String.fromCharCode(byte);
      await command({ command: 'install_rubric', component: btoa(text) });
      refresh();
    });
    return { body: el('div', {},
      table(['Rubric', 'Now', 'For', 'Hash', 'Trouble', ''], rows, 'Rubrics'),
      el('div', { class: 'row' }, el('label', { for: 'component' }, 'A component (.wasm)'), file, upload,
        button('Put the panel before back', () => command({ command: 'roll_back_rubric', reason: 'from the page' })
          .then(refresh)))) };
  },

  async policies() {
    const { policies } = await json('api/policies');
    const rows = policies.map((row) => [row.name, row.acts ? (row.pinned ? 'acts, pinned' : 'acts') : '',
      row.rejected || '', row.policy.weights ? row.policy.weights.slice(0, 12) : '',
      button('Let it act', () => command({ command: 'choose_policy', policy: row.name, pin: false,
        reason: 'from the page' }).then(refresh))]);
    return { body: el('div', {}, table(['Policy', 'Now', 'Rejected, for', 'Weights', ''], rows, 'Policies'),
      el('div', { class: 'row' }, button('Back to the one before', () =>
        command({ command: 'roll_back_policy', reason: 'from the page' }).then(refresh)))) };
  },

  async log() {
    const list = el('ol', { 'aria-live': 'off' });
    const FAULTS = ['task_failed', 'stage_halted', 'training_diverged', 'alarm_raised', 'checkpoint_rejected', 'log_repaired'];
    const status = await json('api/status');
    const follow = new EventSource(`api/events?from=${Math.max(0, status.records - 100)}`);
    const show = (event) => {
      const record = JSON.parse(event.data);
      const { type, ...rest } = record.event || record;
      const words = JSON.stringify(rest);
      list.prepend(el('li', {}, el('time', {}, record.at_ms ? new Date(record.at_ms).toLocaleTimeString() : ''), ' ',
        el('b', { class: FAULTS.includes(type) ? 'fault' : null }, `${record.offset ?? ''} ${type || event.type}`), ' ',
        words.length > 300 ? `${words.slice(0, 300)} (${words.length} characters)` : words));
      while (list.children.length > 500) list.lastChild.remove();
    };
    for (const kind of KINDS) follow.addEventListener(kind, show);
    return { body: el('div', { class: 'log' }, el('p', { class: 'note' }, 'The last records, the newest first, as they come.'), list),
      end: () => follow.close() };
  },
};

const activate = (rubric, when) => command({ command: 'activate_rubrics',
  wanted: [{ rubric: rubric.rubric, weight: 1, tags: [] }], when, again: 'allow' }).then(refresh);

// Every kind of event has its own name in the stream, and a browser wants each named.
const KINDS = ['run_started', 'model_pinned', 'settings_changed', 'rubric_installed', 'rubric_activated', 'shadows_set',
  'rubric_refused', 'rubric_rolled_back', 'prompt_admitted', 'prompts_held_out', 'prompt_rejected', 'seed_data_admitted',
  'prompts_written', 'iteration_started', 'iteration_started_unplanned', 'plan_adopted', 'prompts_sealed',
  'completions_sampled', 'judge_probed', 'judgments_recorded', 'shadow_judged', 'pair_formed', 'pair_skipped',
  'pairs_sealed', 'reference_scored', 'adapter_merged', 'reference_made', 'step_taken', 'step_skipped', 'memory_short',
  'training_rolled_back', 'training_diverged', 'checkpoint_saved', 'checkpoint_lost', 'held_out_judged',
  'evaluation_finished', 'alarm_raised', 'checkpoint_promoted', 'checkpoint_rejected', 'iteration_finished', 'task_failed',
  'stage_halted', 'prompts_split', 'prompt_quarantined', 'policy_chosen', 'iterations_raised', 'vote_recorded',
  'pause_requested', 'resume_requested', 'log_repaired', 'log_compacted', 'compacted'];

/** One answer, shown while it comes. */
async function answer(model, messages, place) {
  const response = await ask('v1/chat/completions', { model, messages, stream: true });
  const given = { text: '', id: '' };
  for await (const data of lines(response)) {
    if (data === '[DONE]') break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    given.id = chunk.id;
    given.text += (chunk.choices[0] && chunk.choices[0].delta.content) || '';
    place.textContent = given.text;
  }
  return given;
}

/** The data of server-sent events. */
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const whole = rest.split('\n');
    rest = whole.pop();
    for (const line of whole) if (line.startsWith('data: ')) yield line.slice(6);
  }
}

function voting(answered) {
  const place = el('div', { class: 'row' });
  const vote = (label, body) => button(label, async () => {
    await json('v1/feedback', body);
    place.replaceChildren(el('span', { class: 'note' }, 'Your vote is in the log.'));
  });
  if (answered.length === 2) {
    const [left, right] = answered;
    place.append(vote('Left is better', { completion_id: left.id, better_than: right.id }),
      vote('Right is better', { completion_id: right.id, better_than: left.id }));
  } else {
    place.append(vote('Good', { completion_id: answered[0].id, rating: 'up' }),
      vote('Bad', { completion_id: answered[0].id, rating: 'down' }));
    const text = el('input', { 'aria-label': 'What should have been said', placeholder: 'What should have been said' });
    place.append(text, button('Correct', async () => {
      if (!text.value.trim()) throw new Error('write what should have been said first');
      await json('v1/feedback', { completion_id: answered[0].id, correction: text.value.trim() });
      place.replaceChildren(el('span', { class: 'note' }, 'Your correction is in the log.'));
    }));
  }
  return place;
}

// Which view is shown.

let shown = null;

async function show() {
  const name = views[location.hash.slice(1)] ? location.hash.slice(1) : 'now';
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (shown && shown.end) shown.end();
  shown = null;
  try {
    trouble(null);
    const drawn = await views[name]();
    view.replaceChildren(drawn.body);
    view.dataset.view = name;
    shown = drawn;
  } catch (error) {
    trouble(error);
  }
}
const refresh = () => show();

async function look() {
  try {
    const status = await json('api/status');
    headline(status);
    if (shown && shown.status && !view.contains(document.activeElement)) shown.status(status);
  } catch (error) {
    $('headline').textContent = 'The run does not answer';
    trouble(error);
  }
}

window.addEventListener('hashchange', show);
if (location.hash.startsWith('#token=')) {
  token.value = location.hash.slice(7);
  sessionStorage.setItem('token', token.value);
  location.hash = '#now';
}
show();
look();
setInterval(look, 2000);
