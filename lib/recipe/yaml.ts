import { Lexer, LineCounter, Parser, parseDocument } from 'yaml';
import { LthError } from '../native/errors.js';

/** No recipe goes half so deep. */
const DEEPEST = 50;

/**
 * The composer calls itself for each level, and Node itself dies where the stack ends inside a regular expression; the
 * parser before it keeps a list instead.
 */
function isTooDeep(text: string): boolean {
  const parser = new Parser();
  for (const lexeme of new Lexer().lex(text)) {
    for (const _ of parser.next(lexeme)); // what is whole is of no interest
    if (parser.stack.length > DEEPEST) return true;
  }
  return false;
}

/**
 * The plain value of a YAML or JSON text: a tree, no matter what aliases say.
 * @param aliases how often all in all anchored values may be used again.
 * @throws LthError "recipe" whose message begins with `source`.
 */
export function parseYaml(text: string, source: string, aliases: number): unknown {
  const refuse = (why: string, cause?: unknown) => new LthError('recipe', `${source}: ${why}`, { cause });
  try {
    if (isTooDeep(text)) throw refuse(`is nested deeper than ${DEEPEST}`);
    // Pretty errors copy the line for each error: hours for a long line with nothing but errors.
    const lineCounter = new LineCounter();
    const document = parseDocument(text, { prettyErrors: false, lineCounter, logLevel: 'error' });
    const problem = document.errors[0];
    if (problem) {
      const { line, col } = lineCounter.linePos(problem.pos[0]);
      throw refuse(`${problem.message} at line ${line}, column ${col}`);
    }
    const value = document.toJS({ maxAliasCount: aliases });
    // Finds circles, too.
    JSON.stringify(value, (key, inner) => {
      if (key === '__proto__') throw refuse('__proto__ is no key');
      return inner;
    });
    return value;
  } catch (cause) {
    if (cause instanceof LthError) throw cause;
    // The rest of a message about circles is a drawing.
    throw refuse((cause instanceof Error ? cause.message : String(cause)).split('\n')[0] ?? '', cause);
  }
}
