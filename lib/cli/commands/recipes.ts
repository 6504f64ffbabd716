import { Command } from 'commander';
import { loadRecipe, recipeNames, recipeText } from '../../recipe/load.js';

export function recipesCommand(): Command {
  return new Command('recipes')
    .description('list the built-in recipes, or print one')
    .argument('[name]', 'a recipe to print as YAML')
    .action((name?: string) => {
      if (name !== undefined) {
        process.stdout.write(recipeText(name));
        return;
      }
      const names = recipeNames();
      const width = Math.max(...names.map((one) => one.length));
      for (const one of names) process.stdout.write(`${one.padEnd(width)}  ${loadRecipe(one).description}\n`);
    });
}
