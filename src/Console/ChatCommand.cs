using System.CommandLine;
using Sluice.Decoding;
using Sluice.Templates;

namespace Sluice.Console;

/// <summary>sluice chat MODEL: a conversation. Ctrl-C stops the answer, not the program; /reset forgets, /exit leaves.</summary>
internal static class ChatCommand
{
    public const string Name = "chat";

    public static Command Create()
    {
        ModelArguments model = new();
        SamplingArguments sampling = new();
        Option<string?> system = new("--system") { Description = "What the model is told first" };
        Command command = new(Name, "Talk with a model. /reset forgets the conversation, /exit leaves.") { system };
        model.AddTo(command);
        sampling.AddTo(command);
        command.SetAction((parsed, cancellation) => RunAsync(parsed, model, sampling, parsed.GetValue(system), cancellation));
        return command;
    }

    private static async Task<int> RunAsync(ParseResult parsed, ModelArguments arguments, SamplingArguments sampling, string? system, CancellationToken cancellation)
    {
        using Model model = await arguments.LoadAsync(parsed, cancellation);
        SamplingParameters parameters = sampling.Read(parsed, model);
        using Session session = model.CreateSession();
        ChatPrompt chat = new(model.Tokenizer, model.ChatTemplate, system);
        Terminal.Note($"chat format: {chat.Format}; /reset forgets, /exit leaves, Ctrl-C stops an answer");
        CancellationTokenSource? running = null;
        using System.Runtime.InteropServices.PosixSignalRegistration registration = System.Runtime.InteropServices.PosixSignalRegistration.Create(
            System.Runtime.InteropServices.PosixSignal.SIGINT,
            signal =>
            {
                signal.Cancel = true;
                if (Volatile.Read(ref running) is { } answer)
                {
                    answer.Cancel();
                }
                else
                {
                    Terminal.Note("\n(/exit leaves)");
                }
            });
        while (true)
        {
            System.Console.Error.Write("> ");
            if (System.Console.In.ReadLine() is not { } line || line.Trim() is "/exit")
            {
                return 0;
            }

            if (line.Trim() is "/reset")
            {
                chat.Reset();
                Terminal.Note("(forgotten)");
                continue;
            }

            if (string.IsNullOrWhiteSpace(line))
            {
                continue;
            }

            if (System.Console.IsInputRedirected)
            {
                // No terminal shows what was asked.
                System.Console.Error.WriteLine(line);
            }

            int[] prompt;
            try
            {
                prompt = chat.Ask(line);
            }
            catch (ChatTemplateException e)
            {
                Terminal.Note($"sluice: {e.Message}");
                continue;
            }

            Answer answer = new();
            using CancellationTokenSource stop = new();
            Volatile.Write(ref running, stop);
            try
            {
                await foreach (GeneratedToken token in session.GenerateAsync(prompt, parameters, stop.Token))
                {
                    answer.Add(token);
                    System.Console.Out.Write(token.Text);
                    System.Console.Out.Flush();
                }
            }
            catch (OperationCanceledException) when (stop.IsCancellationRequested)
            {
                System.Console.Out.Write(" [stopped]");
            }
            catch (ContextFullException e)
            {
                chat.TakeBack();
                Terminal.Note($"sluice: {e.Message} (/reset forgets the conversation)");
                continue;
            }
            finally
            {
                Volatile.Write(ref running, null);
            }

            chat.Answered(answer.Text);
            System.Console.Out.WriteLine();
            Terminal.Note(answer.Summary(prompt.Length));
        }
    }
}
